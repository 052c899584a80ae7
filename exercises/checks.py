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
        assert one.shape == right.shape, f"It gives {_shape(one)}; {_shape(right)} is right."
        assert _equal(one, right), f"It gives {one.round(4)}, and {right.round(4)} is right."


def _shape(values: np.ndarray) -> str:
    return f"an array of shape {values.shape}" if values.ndim else "one number"


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
    for layer in range(7):  # a depth that no model of a notebook has
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
        assert not np.isnan(one).any(), (
            "The arccos of a number above 1 is nan: clamp the cosine to [-1, 1]."
        )
        close = _equal(one, of[RIGHT], 1e-3) and not _equal(one, of[RIGHT])
        assert not close, (
            "Near 1 a cosine in float32 is too coarse for small angles: compute in float64."
        )
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
        "The mean over the texts is missing: return one distance for each block.": of_texts,
        "This is the sum over the texts: take the mean.": len(mask) * right,
        "You averaged over the blocks: average over the texts.": of_texts.mean(0),
        "This is the arccos of the dot product: divide by both lengths first.": row(of_dots),
        "This is one minus the cosine: take the arccos of the cosine.": row(1 - cosines.mean(0)),
        "You averaged cosines: take the arccos for each text, then the mean.": row(of_the_mean),
        "Off by one: n layers lie between x^(l) and x^(l+n), not x^(l+n-1).": row(mean, n - 1)[:-1],
        "The last block is missing: l goes from 0 to L - n, as there are L + 1 states.": right[:-1],
        "Position -1 of a short text is padding: take each text's last token.": row(at_the_end),
        "You averaged over all tokens: take the last token of each text.": row(everywhere),
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
        "This block starts one layer too late: layers are counted from 0.": (right.start + 1, n),
        "This is the least similar block: take the smallest distance.": (row.argmax(), n),
        "Off by one: n layers lie between l and l + n, not l + n - 1.": (shorter.argmin(), n),
        "The block that ends with the last layer is missing: l is up to L - n.": (without_last, n),
        "distances[n] has the distances from x^(n): take the n-th diagonal.": (row_n.argmin(), n),
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
        assert own, (
            "The list has a layer that is not the model's: only take layers out of the list."
        )
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
        assert torch.equal(given, expected), (
            "Your cut model writes another text than the library's."
        )


def _check_layers(kept: list[int], block: Block) -> None:
    start, stop = block.start, block.stop
    skipped = range(start, stop + block.size - 1, 2)
    gone = {
        "The model still has all its layers: change it in place.": (),
        "A layer too many: the block ends with layer start + n - 1.": range(start, stop + 1),
        "A layer too few: the block ends with layer start + n - 1.": range(start, stop - 1),
        "Layer `start` goes, too: the block is start to start + n - 1.": range(start + 1, stop + 1),
        "After `del layers[l]` the next layer is number l: you dropped every second one.": skipped,
        "You kept the block and dropped all other layers.": [*range(start), *range(stop, 6)],
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
        "The configuration is out of date: config.num_hidden_layers is "
        f"{config.num_hidden_layers}, and {stay} layers stay. "
        "A saved model would be loaded at full depth."
    )
    for name in ("layer_types", "no_rope_layers"):
        assert getattr(config, name) == getattr(expected, name), (
            f"The configuration is out of date: config.{name} has one entry for each layer, and "
            "the entries of the dropped layers must go."
        )
    numbers = [layer.self_attn.layer_idx for layer in model.model.layers]
    assert numbers == list(range(stay)), (
        f"self_attn.layer_idx is {numbers}: it is the layer's place in the key-value cache, so "
        "number the layers again from 0."
    )


# ---- floor --------------------------------------------------------------------------------


def _floor(function: Callable) -> None:
    """Four made tests: in each another blind answer is the best, or another letter."""
    shortest = "aaa B cc, A bb cc, a B c, A bb c, aa bb C, aa B cc, C bb aaa"
    last_letter = "a bb CCC, aa b cc dd EEE, a bb ccc d EEE, bb a cc dd EE, a bb c DD"
    first_letter = "AA b, AA b cc, a BB, AAA b cc, a bb c DD"
    guess = "a BB, a BB, BB a, BB a, a b CCC d"
    cases = [(_questions(test),) for test in (shortest, last_letter, first_letter, guess)]
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
    right = {"guessing": guess, "the same letter": letter, "the shortest choice": shortest}
    answers = {RIGHT: max(right.values())}
    for name, score in right.items():
        answers[f"This is {name} alone: take the best of the three."] = score
    for name, wrong_scores in _wrong_floors(questions).items():
        for sentence, score in wrong_scores.items():
            answers[sentence] = max((right | {name: score}).values())
    answers["This is the mean of the three: take the best."] = np.mean([*right.values()])
    return answers


def _wrong_floors(questions: list[dict]) -> dict:
    """What may be wrong with each of the three, and its score then."""
    lengths = [np.array([len(choice) for choice in q["choices"]]) for q in questions]
    places = np.array([question["answer"] for question in questions])
    counts = np.array([len(n) for n in lengths])
    letters = np.arange(counts.max())
    is_right, exists = places[:, None] == letters, counts[:, None] > letters
    by_letter = is_right.mean(axis=0)
    only_a = by_letter[0]
    ties = [n == n.min() for n in lengths]
    hits = np.array([tie[place] for tie, place in zip(ties, places, strict=True)])
    first = np.array([tie.argmax() for tie in ties]) == places
    m = np.array([tie.sum() for tie in ties])
    longest = map(accuracy_with_ties, lengths, places)
    return {
        "guessing": {
            "Guessing is missing, or it is not the mean of 1/k over the questions.": 0,
            "You guess as if all questions had as many choices as the first one.": 1 / counts[0],
            "You took 1 over the mean of k: take the mean of 1/k.": 1 / counts.mean(),
        },
        "the same letter": {
            "The same letter is missing: try every letter, and take the best score.": 0,
            "You try some letters only: try every letter, also those of few questions.": only_a,
            "The first letter is missing: places are counted from 0.": by_letter[1:].max(),
            "A letter's score is its share of all questions, also of those that do not have it.": (
                is_right.sum(axis=0) / exists.sum(axis=0)
            ).max(),
        },
        "the shortest choice": {
            "The shortest choice is missing, or you do not count its characters.": 0,
            "You take the first of m shortest choices: the right one scores 1/m.": first.mean(),
            "Of m choices that are equally short, the right one scores 1/m, not 1.": hits.mean(),
            "Of m choices that are equally short, the right one scores 1/m, not 0.": np.mean(
                hits & (m == 1)
            ),
            "You always add 1/m: add it only where the right choice is one of the m.": np.mean(
                1 / m
            ),
            "You take the longest choice: take the shortest.": np.mean([*longest]),
        },
    }


# ---- paired_error -------------------------------------------------------------------------

DDOF = "The sum of squares is divided by N - 1, not by N: np.std needs ddof=1."


def _paired_error(function: Callable) -> None:
    """Two models that mostly answer the same questions rightly."""
    draw = np.random.default_rng(1)
    whole = (draw.random(40) < 0.6).astype(float)
    cut = np.where(draw.random(40) < 0.2, 1 - whole, whole)
    _compare(function, [(whole, cut)], _error_answers)


def _error_answers(first: np.ndarray, second: np.ndarray) -> dict:
    _, right = weighted_mean(first - second, np.ones(len(first)))
    answers = {RIGHT: right, DDOF: np.std(first - second) / np.sqrt(len(first))}
    answers |= _wrong_errors(first, second, ddof=1)
    for sentence, value in _wrong_errors(first, second, ddof=0).items():
        answers[f"{sentence} Then: {DDOF}"] = value
    return answers


def _wrong_errors(first: np.ndarray, second: np.ndarray, ddof: int) -> dict:
    n, difference = len(first), first - second
    root = np.sqrt(n)
    s, of_first, of_second = (x.std(ddof=ddof) for x in (difference, first, second))
    not_centred = np.sqrt(np.sum(difference**2) / (n - ddof))
    return {
        "This is unpaired. The questions are the same: subtract the scores first.": np.hypot(
            of_first, of_second
        )
        / root,
        "You added two errors: subtract the scores first.": (of_first + of_second) / root,
        "You subtracted two errors: subtract the scores.": (of_first - of_second) / root,
        "This is the error squared: take its square root.": s**2 / n,
        "This is s, the spread of single questions: divide it by the square root of N.": s,
        "This is s squared: take its root, and divide that by the square root of N.": s**2,
        "You divided s squared by the square root of N: divide s by it.": s**2 / root,
        "You divided s by N: divide it by the square root of N.": s / n,
        "You divided s by the square root of N - 1: divide it by the square root of N.": s
        / np.sqrt(n - 1),
        "You did not subtract the mean of the differences.": not_centred / root,
        "You took abs of the differences: keep their sign.": abs(difference).std(ddof=ddof) / root,
        "This is two standard errors: give one.": 2 * s / root,
        "This is 1.96 standard errors: give one.": 1.96 * s / root,
        "This is the error of the first score alone.": of_first / root,
        "This is the error of the second score alone.": of_second / root,
        "This is the difference: take its standard error.": difference.mean(),
    }


CHECKS = {
    "angles": _angles,
    "similarity_block": _similarity_block,
    "dropped": _dropped,
    "floor": _floor,
    "paired_error": _paired_error,
}
