"""No text judges what it was fitted on, or what it has chosen; solved examples are not scored."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import measured_scores
from transformers import PreTrainedTokenizerBase

from lib import evaluation
from lib.blocks import Block, BlockDistances
from lib.data import sets, wheels
from lib.healing import packing
from replication import measure, paths, profiles
from replication.beyond import repair, repeat, which_block
from replication.beyond.letters import (
    depth_probe,
    jacobian_lens,
    option_ends,
    translator,
    transplant,
)
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
    (jacobian_lens, "calibration_texts"): "lens",
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
    ("arc_easy_test", "test"),
    ("hellaswag", "validation"),
    ("gsm8k", "train"),
    ("gsm8k", "test"),
}


def from_hub(name: str, split: str) -> list[dict]:
    """Rows that name their split, but for sets of which one split only is read."""
    numbers = range(40)
    if name == "c4":
        return [{"text": f"Document {i} of C4, {split} split."} for i in range(60)]
    if name == "gsm8k":
        return [
            {"question": f"Problem {i}, {split} split?", "answer": f"It is {i}.\n#### {i}"}
            for i in numbers
        ]
    if name == "mmlu":
        return [
            {"question": f"Question {i}, {split} split?", "choices": list("wxyz"), "answer": i % 4}
            | {"subject": f"subject {i % 2}"}
            for i in numbers
        ]
    if name == "arc_easy_test":
        choices = {"text": list("wxyz"), "label": list("ABCD")}
        return [
            {"id": str(i), "question": f"Question {i}, {split} split?", "choices": choices}
            | {"answerKey": "ABCD"[i % 4]}
            for i in numbers
        ]
    return sets._arrow(wheels.path(name))


@pytest.fixture
def splits(monkeypatch) -> list:
    """What is read of the hub: the name and split of each data set."""
    names = []

    def hub(name, split, count=None):
        names.append((name, split))
        return from_hub(name, split)[:count]

    monkeypatch.setattr(sets, "_hub", hub)
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
    measured_scores(NAME, profile, [BLOCK], list(evaluation.TASK_SPECS))
    recipe = profiles.recipe(NAME, profile)
    measured_scores(NAME, profile, [BLOCK], ["c4"], recipe)
    repair.table([request.mapped(NAME, profile, "c4", BLOCK, kind) for kind in repair.KINDS])
    measure.table(translator.translated, maps, profile)
    measure.table(depth_probe.depths, maps, profile)
    measure.table(option_ends.option_ends, maps, profile)
    measure.table(transplant.transplants, maps, profile)
    measure.table(jacobian_lens.lens, maps, profile)
    measure.table(damage.damage, maps, profile)
    measure.table(repeat.repeats, maps, profile)
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


def synthetic(rises: np.ndarray, matrix: np.ndarray, texts: int = 12):
    """A damage table and the map of a model with len(matrix) - 1 layers."""
    rows = []
    for block in damage.all_blocks(len(matrix) - 1):
        rise = rises[block.start, block.stop]
        row = {
            "model": "m",
            "block_start": block.start,
            "block_size": block.size,
            "value": rise,
            "examples": np.full(texts, rise),
            "weights": np.ones(texts),
        }
        rows.append(row)
    distances = BlockDistances(matrix, 0 * matrix, np.stack([matrix] * 4), 4)
    return pd.DataFrame(rows), {"m": distances}


def test_texts_that_judge_a_criterion_do_not_choose_for_it():
    """Of every criterion: even texts choose the block that odd ones judge, and the other way."""
    draw = np.random.default_rng(0)
    damages, maps = synthetic(*draw.random((2, 9, 9)), texts=8)
    tables = {}
    for name in (which_block.BEST, *which_block.CRITERIA.values()):
        examples = draw.random((len(damages), 8))
        tables[name] = damages.assign(criterion=name, examples=list(examples))
    damages = tables[which_block.BEST]
    of_layers = damages[damages.block_size == 1]
    states = [*tables.values(), of_layers.assign(criterion="update, first token")]
    judged = which_block.head_to_head(damages, pd.concat(states), maps)
    rows = judged[judged.criterion.isin(tables)]
    assert len(rows) == 4 * len(tables)  # sizes
    for row in rows.itertuples():
        table = tables[row.criterion]
        values = np.stack(table[table.block_size == row.block_size].examples)
        rises = np.stack(damages[damages.block_size == row.block_size].examples)
        evens, odds = (values[:, half::2].sum(axis=1).argmin() for half in (0, 1))
        assert row.starts == [evens, odds]
        assert row.examples[1::2].tolist() == rises[evens, 1::2].tolist()
        assert row.examples[::2].tolist() == rises[odds, ::2].tolist()
