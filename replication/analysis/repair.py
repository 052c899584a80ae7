"""What repairs of a cut gain, as a table."""

import pandas as pd

WIDTH = 1.96  # standard errors to either side: a 95 % interval


def repairs(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a repair and depth, of scores as `measure.repair` gives them.

    c4 (nats a token) and arc_easy (accuracy), each with the ends of its 95 % interval; share of the
    loss that the plain cut adds which the repair takes away (1: all of it); minutes, parameters.
    """
    by = ["model", "strategy", "block_size", "repair"]
    reach = WIDTH * scores.standard_error
    scores = scores.assign(low=scores.value - reach, high=scores.value + reach)
    found = scores.drop_duplicates(by).set_index(by)[["seconds", "parameters"]]
    for task, of_task in scores.groupby("task", sort=False):
        of_task = of_task.drop_duplicates([*by]).set_index(by)
        for end, column in (("", "value"), (" low", "low"), (" high", "high")):
            found[task + end] = of_task[column]
    found = found.reset_index()
    whole = found[found.block_size == 0].set_index("model").c4
    depth = by[:3]
    cut = found[found.repair == "plain cut"].set_index(depth).c4
    before = pd.Series(cut.reindex(pd.MultiIndex.from_frame(found[depth])).values)
    found["share"] = (before - found.c4) / (before - found.model.map(whole))
    found.insert(len(by), "minutes", found.pop("seconds") / 60)
    return found[[c for c in found if c != "parameters"] + ["parameters"]]
