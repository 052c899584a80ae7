"""The command `deeper-layers`, in a checkout also `python -m lib`: prune a model, or plan it."""

import sys
from collections.abc import Sequence

USAGE = """deeper-layers prune MODEL FOLDER --layers 6   writes a smaller checkpoint into FOLDER
       deeper-layers plan MODEL --layers 6           says what that takes, and writes nothing
Each has more options: deeper-layers prune --help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the rest of the line to a command; return its exit status."""
    command, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if command == "prune":
        from .prune.__main__ import main as run
    elif command == "plan":
        from .prune.plan import main as run
    else:
        is_help = command in ("-h", "--help")
        print(f"usage: {USAGE}", file=sys.stdout if is_help else sys.stderr)
        return 0 if is_help else 2
    return run(rest[:-1])


if __name__ == "__main__":
    sys.exit(main())
