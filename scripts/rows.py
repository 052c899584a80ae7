"""The ledger: `python -m scripts.rows` makes the rows of the recorded run anew and draws all rows.

Checks every file of data/rows/, those that others have sent, too, and ends with one sentence for
the first broken one. `python -m scripts.readme` puts the table into figures/README.md.
"""

import sys

from lib import storage
from replication import paths, profiles, tables
from replication.figures import style
from replication.row import build, check, figure

TABLES = ("similarity", "unhealed", "forms", "exits", "letter_biases", "second_model")
TABLES += ("option_ends",)
UNRECORDED = {"": "not in the recorded run"}


def recorded() -> dict[str, dict]:
    """Return the rows of the recorded models. They have no commit: their tables were measured by
    several."""
    profile = profiles.get(profiles.DRAW_ONLY_PROFILE)
    of_run = {name: tables.read(name, profile) for name in TABLES}
    return {name: build.row_of(name, of_run, None, UNRECORDED) for name in profile.models}


def main() -> int:
    try:
        for row in recorded().values():
            check.write(row, check.ROWS)
        rows = check.read_all()
    except check.RowError as error:
        print(error, file=sys.stderr)
        return 1
    drawn = figure.figure_rows(rows)
    text = drawn.table.to_csv(index=False, float_format="%.10g")
    storage.atomic_write(paths.ROOT / "figures" / "rows.csv", text.encode())
    storage.atomic_write(paths.ROOT / "figures" / "rows.png", style.png(drawn))
    print(f"{len(rows)} rows are drawn in figures/rows.png.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
