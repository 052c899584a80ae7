"""Checks of the functions that students write in write_it.ipynb: against the library, on made data.

A check also computes the usual wrong answers. It says in one sentence which of them it was given.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import AutoModelForCausalLM, SmolLM3Config

from lib import pruning
from lib.blocks import Block, BlockDistances
from lib.evaluation import Task, accuracy_with_ties, weighted_mean
from lib.models.decoder import decoder_layers
from lib.models.layers import pruned_config
from lib.similarity import angular_distances

RIGHT = "right"
NOTHING = "Your function returned None: is the `return` missing?"


class HalfRight(AssertionError):
    """What a function does first is right, and not all that follows from it."""


def check(function: Callable) -> None:
    """Print that the function is right. Raises AssertionError that says what is wrong, if not."""
    try:
        CHECKS[function.__name__](function)
    except AssertionError as wrong:
        raise AssertionError(*wrong.args) from None  # the sentence, without the lines of this file
    print(f"{function.__name__} is right: it gives what the library gives.")


def _compare(function: Callable, cases: Sequence[tuple], answers: Callable) -> None:
    """answers(*case): the right answer, and the usual wrong ones under what is wrong with them."""
    given = [_numbers(function(*case)) for case in cases]
    known = [answers(*case) for case in cases]
    for sentence in known[0]:
        if all(_equal(*pair) for pair in zip(given, [of[sentence] for of in known], strict=True)):
            assert sentence == RIGHT, sentence
            return
    for one, of in zip(given, known, strict=True):
        right = np.asarray(of[RIGHT])
        assert _equal(one, right), f"It gives {one.round(4)}, and {right.round(4)} is right."


def _numbers(result) -> np.ndarray:
    """Return what a student's function gave as numbers. Raises AssertionError if it gave None."""
    assert result is not None, NOTHING
    return np.asarray(result, dtype=float)


def _equal(one, other, tolerance: float = 1e-6) -> bool:
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=tolerance)


# ---- angles -------------------------------------------------------------------------------


def _angles(function: Callable) -> None:
    """Two layers of the made model only lengthen their input, and one hardly turns it."""
    draw = torch.Generator().manual_seed(0)
    hidden_states = [torch.randn(6, 9, 16, generator=draw)]
    for layer in range(8):
        x, added = hidden_states[-1], torch.randn(6, 9, 16, generator=draw)
        after = {1: 2 * x, 3: 2 * x, 5: x + 1e-4 * added}
        hidden_states.append(after.get(layer, x + added))
    lengths = torch.tensor([8, 8, 6, 5, 5, 2])  # of 9: a mask's sum is a position, too
    mask = (torch.arange(9) < lengths[:, None]).long()
    cases = [(hidden_states, mask, n) for n in (1, 3)]
    given = [_numbers(function(*case)) for case in cases]
    known = [_angle_answers(*case) for case in cases]
    for sentence in known[0]:  # before what only rounds: a wrong formula rounds, too
        pairs = zip(given, [of[sentence] for of in known], strict=True)
        if all(_rounded_alike(*pair) for pair in pairs):
            assert sentence == RIGHT, sentence
            break
    for one, of in zip(given, known, strict=True):
        assert not np.isnan(one).any(), "arccos(1 + a rounding error) is nan: clamp the cosine."
        close = _equal(one, of[RIGHT], 1e-3) and not _equal(one, of[RIGHT])
        assert not close, "Near 1 the arccos of a rounded cosine is noise: compute in float64."
    _compare(function, cases, _angle_answers)


def _rounded_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two answers are equal but for what float32 rounds, and where one is NaN."""
    if one.shape != other.shape:
        return False
    there = ~np.isnan(one)
    return there.any() and _equal(one[there], other[there], 1e-3 * max(1, np.max(other)))


def _angle_answers(hidden_states: list, mask: torch.Tensor, n: int) -> dict:
    stream = torch.stack(hidden_states, dim=2)  # (B, T, L + 1, D)
    last = stream[range(len(mask)), mask.sum(1) - 1]
    distances = angular_distances(last)
    one_later = angular_distances(stream[range(len(mask)), mask.sum(1)]).mean(0)
    at_the_end = angular_distances(stream[:, -1]).mean(0)
    everywhere = angular_distances(stream[mask.bool()]).mean(0)
    cosines = np.cos(np.pi * distances)
    of_the_mean = np.arccos(cosines.mean(0).clip(-1, 1)) / np.pi

    def row(matrix, n=n):
        return np.diagonal(matrix, n)

    mean = distances.mean(0)
    right = row(mean)
    dots = np.einsum("bld,bmd->blm", last, last)
    of_dots = (np.arccos(dots.clip(-1, 1)) / np.pi).mean(0)
    of_texts = np.diagonal(distances, n, 1, 2).T
    return {
        RIGHT: right,
        "These are radians: divide by pi, so that a half turn is 1.": np.pi * right,
        "These are degrees: divide by 180, so that a half turn is 1.": 180 * right,
        "This is the cosine: take its arccos, divided by pi.": row(cosines.mean(0)),
        "The last token has the position mask.sum() - 1, not mask.sum().": row(one_later),
        "The mean over the texts is missing: one distance a block.": of_texts,
        "This is the sum over the texts: take their mean.": len(mask) * right,
        "You averaged over the blocks: average over the texts.": of_texts.mean(0),
        "Divide by both lengths: this is the arccos of the dot product.": row(of_dots),
        "This is one minus the cosine: take the arccos of the cosine.": row(1 - cosines.mean(0)),
        "You averaged cosines: take the arccos for each text, then the mean.": row(of_the_mean),
        "Off by one: n layers lie between x^(l) and x^(l+n), not x^(l+n-1).": row(mean, n - 1)[:-1],
        "The last block is missing: l goes from 0 to L - n, as there are L + 1 states.": right[:-1],
        "Position -1 of a short text is padding: take each text's last token.": row(at_the_end),
        "You averaged over all tokens: take the last one of each text.": row(everywhere),
    }


# ---- similarity_block ---------------------------------------------------------------------


def _similarity_block(function: Callable) -> None:
    """In the last case the best block ends with the last layer."""
    cases = []
    for seed, n in enumerate((2, 3, 4)):
        half = np.triu(np.random.default_rng(seed).uniform(0.1, 0.5, (11, 11)), 1)
        cases.append((half + half.T, n))
    cases[-1][0][6, 10] = cases[-1][0][10, 6] = 0.05

    def start_and_size(distances, n):
        block = function(distances, n)
        assert block is not None, NOTHING
        assert isinstance(block, Block), "Return a Block(start, size), from lib.blocks."
        return block.start, block.size

    _compare(start_and_size, cases, _block_answers)


def _block_answers(distances: np.ndarray, n: int) -> dict:
    right = pruning.similarity_block(BlockDistances(distances, None, None, 2), n)
    row, row_n = np.diagonal(distances, n), distances[n]
    shorter = np.diagonal(distances, n - 1)[:-1]
    without_last = row[:-1].argmin()
    return {
        RIGHT: (right.start, n),
        "The second number of a Block is its size, not its end.": (right.start, right.stop),
        "Layers are counted from 0.": (right.start + 1, n),
        "This is the least similar block: take the least distance.": (row.argmax(), n),
        "Off by one: n layers lie between l and l + n, not l + n - 1.": (shorter.argmin(), n),
        "The block that ends with the last layer is missing: l goes to L - n.": (without_last, n),
        "distances[n] are distances from x^(n): take the n-th diagonal.": (row_n.argmin(), n),
    }


# ---- dropped ------------------------------------------------------------------------------


def _dropped(function: Callable) -> None:
    """On a tiny model of six layers, of which every second has a sliding window."""
    sizes = {"vocab_size": 96, "num_hidden_layers": 6, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = SmolLM3Config(
        **sizes,
        **heads,
        pad_token_id=0,
        initializer_range=0.3,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"] * 3,
        no_rope_layers=[1, 1, 0, 1, 0, 1],
    )
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(config).eval()
    cuts = {block: copy.deepcopy(whole) for block in (Block(1, 3), Block(5, 1))}
    for block, model in cuts.items():
        before = list(decoder_layers(model))
        function(model, block.start, block.size)
        own = all(layer in before for layer in model.model.layers)
        assert own, "A layer stands in for another: take layers out of the list, put none in."
        _check_layers([before.index(layer) for layer in model.model.layers], block)
    try:
        _check_all_but_layers(whole, cuts)
    except Exception as wrong:
        raise HalfRight(str(wrong)) from None


def _check_all_but_layers(whole, cuts: dict) -> None:
    """What follows from the layers of each cut, by its block, and what it writes."""
    tokens = torch.arange(1, 13)[None]
    for block, model in cuts.items():
        _check_numbers(model, pruned_config(whole.config, block.kept(6)))
        with pruning.dropped(whole, block):
            expected = whole.generate(tokens, max_new_tokens=6, do_sample=False)
        given = model.generate(tokens, max_new_tokens=6, do_sample=False)
        assert torch.equal(given, expected), "It writes another text than the library's cut."


def _check_layers(kept: list[int], block: Block) -> None:
    start, stop = block.start, block.stop
    skipped = range(start, stop + block.size - 1, 2)
    gone = {
        "The model still has all its layers: change it in place.": (),
        "A layer too many: the block ends with layer start + n - 1.": range(start, stop + 1),
        "A layer too few: the block ends with layer start + n - 1.": range(start, stop - 1),
        "Layer `start` goes, too: the block is start to start + n - 1.": range(start + 1, stop + 1),
        "After `del layers[l]` the next layer is number l: you dropped every second one.": skipped,
        "You kept the block and dropped all else.": [*range(start), *range(stop, 6)],
    }
    right = block.kept(6)
    if kept != right:
        for sentence, layers in gone.items():
            assert kept != [l for l in range(6) if l not in layers], sentence
        raise AssertionError(f"The layers that stay are {kept}, and {right} is right.")


def _check_numbers(model, expected) -> None:
    """What follows the layers: the configuration, and the number that each attention has."""
    config, stay = model.config, expected.num_hidden_layers
    assert config.num_hidden_layers == stay, (
        f"The configuration is stale: config.num_hidden_layers is {config.num_hidden_layers}, and "
        f"{stay} layers stay. A saved model would be loaded at full depth."
    )
    for name in ("layer_types", "no_rope_layers"):
        assert getattr(config, name) == getattr(expected, name), (
            f"The configuration is stale: config.{name} has one entry a layer, and must lose those "
            "of the layers that go."
        )
    numbers = [layer.self_attn.layer_idx for layer in model.model.layers]
    assert numbers == list(range(stay)), (
        f"self_attn.layer_idx is {numbers}: it is the layer's place in the key-value cache, so "
        "count anew from 0."
    )


# ---- floor --------------------------------------------------------------------------------


def _floor(function: Callable) -> None:
    """Three made tests: in each another blind answer is the best."""
    shortest = "aaa B cc, A bb cc, a B ccc, aa bb C, aa B cc, C bb aaa"
    letter = "a bb CCC, aa b cc DD, aaa b ccc DDD, AAA b cc, AA b cc dd, a bb cc DD"
    guess = "a BB, a BB, BB a, BB a, a b CCC d"
    cases = [(_questions(test),) for test in (shortest, letter, guess)]
    _compare(function, cases, _floor_answers)


def _questions(test: str) -> list[dict]:
    """The choices of each question; the right one is in capitals."""
    questions = []
    for choices in map(str.split, test.split(", ")):
        answer = [choice.isupper() for choice in choices].index(True)
        questions.append({"choices": choices, "answer": answer})
    return questions


def _floor_answers(questions: list[dict]) -> dict:
    task = Task("arc_easy", tuple(question | {"weight": 1} for question in questions))
    guess, (letter, shortest) = task.chance(0), task.baselines().values()
    lengths = [[len(choice) for choice in question["choices"]] for question in questions]
    pairs = [(n, q["answer"]) for n, q in zip(lengths, questions, strict=True)]
    first = np.mean([np.argmin(n) == answer for n, answer in pairs])
    longest = np.mean([accuracy_with_ties(n, answer) for n, answer in pairs])
    whole_tie = np.mean([n[answer] == min(n) for n, answer in pairs])
    only_a = np.mean([answer == 0 for _, answer in pairs])
    some_letters = max(guess, only_a, shortest)  # to the last letter of the first question: as many
    mean = np.mean([guess, letter, shortest])
    return {
        RIGHT: max(guess, letter, shortest),
        "This is guessing: one letter for all, or the shortest choice, may score more.": guess,
        "You try some letters only: try every letter, also those of few questions.": some_letters,
        "The shortest choice is missing.": max(guess, letter),
        "The same letter for every question is missing.": max(guess, shortest),
        "Guessing is missing: its score is the mean of 1 / k choices.": max(letter, shortest),
        "Of m choices that are equally short, the right one scores 1/m.": max(guess, letter, first),
        "A tie counts once: of m equally short choices the right one scores 1/m.": max(
            guess, letter, whole_tie
        ),
        "You take the longest choice: take the shortest.": max(guess, letter, longest),
        "This is the mean of the blind answers: take the best of them.": mean,
    }


# ---- paired_error -------------------------------------------------------------------------


def _paired_error(function: Callable) -> None:
    """Two models that mostly answer the same questions rightly."""
    draw = np.random.default_rng(0)
    whole = (draw.random(40) < 0.6).astype(float)
    cut = np.where(draw.random(40) < 0.2, 1 - whole, whole)
    _compare(function, [(whole, cut)], _error_answers)


def _error_answers(first: np.ndarray, second: np.ndarray) -> dict:
    root, difference = np.sqrt(len(first)), first - second
    of_shares = np.hypot(first.std(), second.std()) / root  # p (1 - p) / N of each
    each = [weighted_mean(x, np.ones(len(x)))[1] for x in (difference, first, second)]
    right, one, other = each
    unpaired = np.hypot(one, other)
    return {
        RIGHT: right,
        "This is unpaired: the questions are the same, so subtract scores first.": unpaired,
        "This is of two unpaired shares, p(1 - p)/N: subtract scores first.": of_shares,
        "This is the error squared: take its square root.": right**2,
        "This is the difference of two errors: take the error of differences.": abs(one - other),
        "This is the spread of the questions: divide by the root of their number.": right * root,
        "You divided by the number of questions: divide by its square root.": right / root,
        "np.std has n below the sum: an estimate has n - 1 (ddof=1).": difference.std() / root,
        "This is the error of the first score alone.": one,
        "This is the difference: take its standard error.": difference.mean(),
    }


CHECKS = {
    "angles": _angles,
    "similarity_block": _similarity_block,
    "dropped": _dropped,
    "floor": _floor,
    "paired_error": _paired_error,
}
