"""No text judges what it was fitted on, or what it has chosen; solved examples are not scored."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import measured_scores
from test_damage import synthetic
from transformers import PreTrainedTokenizerBase

from lib import evaluation
from lib.blocks import Block, BlockDistances
from lib.data import sets, wheels
from lib.healing import packing
from replication import measure, paths, profiles
from replication.beyond import depth_probe, repair, translator, which_block
from replication.measure import damage, fetching, request
from replication.run import notebooks

NAME, BLOCK = "tiny-random", Block(3, 2)
SMOKE = profiles.get("smoke")
LITTLE = replace(
    SMOKE.limited(2).shortened(1),
    source="hub",
    heal_batch=2,
    heal_tokens=8,
    map_sequences=5,
    damage_sequences=4,
)

# ---- all that is measured, and the texts that it reads ---------------------------------------

FITTING = {  # functions within which texts are read to fit something
    (packing, "training_sequences"): "healing",
    (repair, "fit"): "linear maps",
}
CHOOSING = {  # kinds of result that choose blocks, by halves of the texts (below)
    "states": "states",
    "similarity": "distances",  # by texts of the validation split, as in the paper
}
SPLITS = {  # of the hub's data sets, all that is ever read
    ("c4", "train"),
    ("c4", "validation"),
    ("mmlu", "dev"),
    ("mmlu", "test"),
    ("boolq", "validation"),
    ("arc_easy", "validation"),
    ("hellaswag", "validation"),
    ("gsm8k", "train"),
    ("gsm8k", "test"),
}


class Rows(list):
    """A data set of the hub."""

    def to_list(self) -> list:
        return list(self)

    def select(self, places) -> "Rows":
        return Rows(self[place] for place in places)


def from_hub(name: str, split: str) -> Rows:
    """Rows that name their split, but for sets of which one split only is read."""
    numbers = range(40)
    if name == "gsm8k":
        return Rows(
            {"question": f"Problem {i}, {split} split?", "answer": f"It is {i}.\n#### {i}"}
            for i in numbers
        )
    if name == "mmlu":
        return Rows(
            {"question": f"Question {i}, {split} split?", "choices": list("wxyz"), "answer": i % 4}
            | {"subject": f"subject {i % 2}"}
            for i in numbers
        )
    return Rows(sets._arrow(wheels.path(name)))


@pytest.fixture
def splits(monkeypatch) -> list:
    """What is read of the hub: the name and split of each data set."""
    names = []

    def hub(name, split):
        names.append((name, split))
        return from_hub(name, split)

    def documents(split):
        names.append(("c4", split))
        return (f"Document {i} of C4, {split} split." for i in range(60))

    monkeypatch.setattr(sets, "_hub", hub)
    monkeypatch.setattr(sets, "_c4_documents", documents)
    return names


@pytest.fixture
def texts_read(monkeypatch) -> dict:
    """The texts that are read from now on, by what for: to judge, unless a table above says so."""
    texts, purposes = defaultdict(set), ["judging"]

    def within(purpose, function):
        def noted(*args, **kwargs):
            purposes.append(purpose)
            try:
                return function(*args, **kwargs)
            finally:
                purposes.pop()

        return noted

    for (module, name), purpose in FITTING.items():
        monkeypatch.setattr(module, name, within(purpose, getattr(module, name)))
    for kind, purpose in CHOOSING.items():
        monkeypatch.setitem(fetching.MEASURE, kind, within(purpose, fetching.MEASURE[kind]))
    tokenize = PreTrainedTokenizerBase.__call__

    def noted_call(tokenizer, read, *args, **options):
        texts[purposes[-1]] |= {read} if isinstance(read, str) else set(read)
        return tokenize(tokenizer, read, *args, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", noted_call)
    return texts


def measure_everything(profile) -> BlockDistances:
    """Every kind of result that reads texts, each of one block."""
    maps, _ = measure.distances(profile)
    measured_scores(NAME, profile, [BLOCK], list(evaluation.KINDS))
    recipe = profiles.recipe(NAME, profile)
    measured_scores(NAME, profile, [BLOCK], ["c4"], recipe)
    repair.table([request.mapped(NAME, profile, "c4", BLOCK, kind) for kind in repair.KINDS])
    measure.table(translator.translated, maps, profile)
    measure.table(depth_probe.depths, maps, profile)
    measure.table(damage.damage, maps, profile)
    measure.table(which_block.states, maps, profile)
    return maps[NAME]


def test_texts_that_something_is_fitted_on_judge_nothing(output, splits, texts_read):
    """Of all that notebooks measure, as from the hub."""
    distances = measure_everything(LITTLE)
    experiments = (e for n in notebooks.NOTEBOOKS.values() for e in n.experiments)
    requests = (request for e in experiments for request in e(NAME, distances, LITTLE))
    kinds = {request.kind for request in requests}
    assert kinds <= {folder.name for folder in paths.RESULTS.iterdir()}  # nothing is left out here
    judging = "\n\n".join(texts_read["judging"])
    validation = set(sets.c4("validation", "hub", None))
    assert sum(text in judging for text in validation) >= LITTLE.damage_sequences
    for purpose in CHOOSING.values():
        assert texts_read[purpose]
        assert texts_read[purpose] <= validation
    for purpose in FITTING.values():
        fitting = texts_read[purpose]
        assert fitting
        assert all("train split" in text for text in fitting)
        assert not any(text in judging for text in fitting)
    assert set(splits) == SPLITS


def test_the_hubs_solved_examples_are_of_another_split(splits):
    solved, scored = sets.gsm8k("hub", 40, 5)
    (subject, _) = sets.mmlu("hub", 2, 20).values()
    rows_of = {"train": solved, "test": [*scored, *subject["test"]], "dev": subject["dev"]}
    for split, rows in rows_of.items():
        assert rows
        assert all(f"{split} split" in row["question"] for row in rows)


# ---- half of the texts chooses, the other half judges --------------------------------------


def head_to_head(odds: int, texts: int = 8) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All criteria on random tables, and the damages; `odds` is a seed for every second text."""
    evens_drawn = np.random.default_rng(0)
    odds_drawn = np.random.default_rng(odds)

    def drawn(count: int) -> list[np.ndarray]:
        shape = (count, texts // 2)
        evens = evens_drawn.random(shape)
        odds = odds_drawn.random(shape)
        both = np.stack([evens, odds], axis=2)
        return list(both.reshape(count, texts))

    matrix = np.random.default_rng(9).random((9, 9))
    damages, maps = synthetic(matrix, matrix, texts=texts)
    damages["examples"] = drawn(len(damages))
    tables = []
    for name in which_block.CRITERIA.values():
        table = damages.assign(source="c4", criterion=name)
        table["examples"] = drawn(len(damages))
        tables.append(table)
    first_token = damages[damages.block_size == 1]
    tables.append(first_token.assign(source="c4", criterion="update, first token"))
    judged = which_block.head_to_head(damages, pd.concat(tables), maps)
    return judged.set_index(["criterion", "block_size"]), damages


def test_texts_that_judge_a_criterion_do_not_choose_for_it():
    """Of every criterion: the even texts choose the block that the odd ones judge, and only they.

    Other odd texts change what the odd ones choose, and nothing that the even ones do.
    """
    judged, damages = head_to_head(odds=1)
    other, _ = head_to_head(odds=2)
    changed = set()
    for (criterion, size), row in judged.iterrows():
        evens, odds = row.starts
        other_evens, other_odds = other.starts[criterion, size]
        assert other_evens == evens
        if other_odds != odds:
            changed.add(criterion)
        rises = np.stack(damages[damages.block_size == size].examples)
        assert row.examples[1::2].tolist() == rises[evens, 1::2].tolist()
        assert row.examples[::2].tolist() == rises[odds, ::2].tolist()
    assert changed == {which_block.BEST, *which_block.CRITERIA.values()}
