"""Open or closed book: does a model lose what it knows, or how it reads?

Notebook 11. The same questions with and without the passage that answers them, unhealed, along the
similarity-informed cut.
"""

import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.curves import grid
from replication.measure.experiments import cuts, unpruned
from replication.measure.request import Request
from replication.profiles import Profile

CLOSED = {"sciq": "sciq_closed", "boolq": "boolq_closed", "squad": "squad_closed"}


def requests(name: str, distances, profile: Profile) -> list[Request]:
    """At every second size; columns questions and book."""
    sizes, requested = profile.block_sizes(distances.num_layers)[::2], []
    for questions, closed in CLOSED.items():
        for book, task in {"open": questions, "closed": closed}.items():
            labels = {"questions": questions, "book": book}
            requested += unpruned(name, profile, [task], **labels)
            requested += cuts(name, distances, profile, [task], ["similarity"], sizes, **labels)
    return requested


def figure_books(scores: pd.DataFrame, profile: Profile) -> Figure:
    """The same questions with and without the passage that answers them, a column a model: of
    those of which both were asked."""
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    forms = pruned.groupby(["model", "questions"]).book.nunique()
    both = forms.index[forms == 2]
    table = scores[pd.MultiIndex.from_frame(scores[["model", "questions"]]).isin(both)]
    table = (scores if table.empty else table).assign(variant=lambda rows: rows.book)
    titles = table.model.map(registry.label)
    return grid(table, titles, "variant", "figure_books", profile, of="questions")
