"""Can a linear reading that is fitted to nothing tell answers from preferences?

Notebook 10. The Jacobian lens (Gurnee and others, arXiv 2607.15495) reads a state by its mean
effect on the final states of texts, through the final norm and the unembedding. Here it reads the
letters in the state x at a question's last token after l layers. No label and no state is fitted.
It is no measure of what a model thinks. Two forms:

- PUBLISHED: lens(x) = unembedding · norm(J x), where J is the mean over texts of

      1/|V| Σ_t Σ_{t'≥t} ∂ h_{t'} / ∂ x_t     (t, t' in V)

  of the states h after the last layer, before the norm. V: a text's positions but the first 16 and
  the last. An RMSNorm divides by one number for all letters, which changes no choice. Without it
  the reading of letter a is (w_a * gain) · J x, so a text needs a backward pass a letter, not one
  a dimension. Equal to TransformerLens's `JacobianLens` (tests/test_parity.py).
- LAST_TOKEN, ours: the mean derivative of the letters' logits after a text's last token by the
  state there. Each text has its own norm in it.

Both depend on the texts. So a row also has intervals over resampled texts (`over_texts`); the
standard error is of questions only.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.data import sets
from replication.beyond.letters import readings, states
from replication.beyond.letters.biases import letter_measures, without_bias
from replication.measure import fetching
from replication.measure.experiments import at_sizes
from replication.measure.question import Question
from replication.measure.request import Request, data_source
from replication.profiles import Profile

VERSION = 2  # bumped by hand when the numbers change
TASK = "arc_easy_letters"
EXITS = range(5, 9)  # layers dropped
TEXTS = 48  # of C4
LAST_TOKEN, PUBLISHED = "last token", "published"
SKIPPED = 16  # a text's first positions, whose states are unlike all others
SHORTEST = SKIPPED + 2  # tokens of a text that has a position in V
RESAMPLES = 1000  # of the texts
INTERVAL = 0.025, 0.975
OWN = ("depths", "lens_texts", "lens_tokens", "lens_version")  # parameters that no score has

log = logging.getLogger(__name__)


def lens(name: str, distances, profile: Profile) -> list[Request]:
    """Return the readings of ARC-Easy by letter at EXITS, of the profile's `question_models`,
    as `at_sizes` asks it."""
    depths = [distances.num_layers - size for size in EXITS if size < distances.num_layers]
    is_asked = depths and profile.ablation_questions and profile.map_sequences
    if name not in profile.question_models or not is_asked:
        return []
    (whole,) = at_sizes(name, distances, profile, [TASK], {})
    params = {
        "depths": depths,
        "lens_texts": min(TEXTS, profile.map_sequences),
        "lens_tokens": profile.map_tokens,
        "lens_version": VERSION,
    }
    return [whole.of_kind("lens", **params)]


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a row a form and depth: as answered and with biases removed, with the bounds over
    texts, and the share of the letter that is read most."""
    key = ["model", "reading", "depth"]
    bounds = [f"{name}_{end}" for name in ("texts", "unbiased") for end in ("low", "high")]
    read = letter_measures(scores).pivot_table("value", key, "measure")
    return read.join(scores.set_index(key).reindex(columns=["commonest", *bounds])).round(2)


# ---- measuring ------------------------------------------------------------------------------


def _measured(params: dict) -> list[dict]:
    """Return a row a form and depth: the readings of every question, and how many are right."""
    model, tokenizer = fetching.loaded(params)
    texts = calibration_texts(tokenizer, params)
    task = readings.load_four_options(params)
    letters = task.rows(tokenizer)[0][0].target_ids[0]  # the same tokens in each question
    of_whole, _ = states.last_of_whole(params, OWN)
    answers, weights = readings.answers_of(task)
    rows = []
    for form, of_form in derivatives(model, texts, letters, params["depths"]).items():
        for place, depth in enumerate(params["depths"]):
            by_text = np.einsum("tad,nd->tna", of_form[:, :, place], of_whole[:, depth])
            of_texts = by_text.mean(axis=0)
            row = readings.row_of_letters(depth, form, of_texts, answers, weights)
            row["commonest"] = task.answer_stats(list(of_texts))["commonest"]
            rows.append(row | over_texts(by_text, answers, weights))
    return rows


def calibration_texts(tokenizer, params: dict) -> list[list[int]]:
    """Return the texts of C4 to heal on whose derivatives the lens takes, as tokens."""
    texts = sets.c4("train", data_source(params), params["lens_texts"])
    return [tokenizer(text).input_ids[: params["lens_tokens"]] for text in texts]


def over_texts(by_text: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> dict:
    """Return how many texts there are, and the 95 % bounds of the accuracy over resampled texts:
    as answered (texts_low, texts_high), with biases removed (unbiased_low, unbiased_high).

    by_text: the readings by each text's derivatives, (texts, n, letters).
    """
    draw, count = np.random.default_rng(0), len(by_text)
    accuracies = []
    for drawn in draw.integers(count, size=(RESAMPLES, count)):
        of_texts = by_text[drawn].mean(axis=0)
        both = of_texts, without_bias(of_texts, weights)
        is_right = [of.argmax(axis=1) == answers for of in both]
        accuracies.append(np.average(is_right, axis=1, weights=weights))
    (low, unbiased_low), (high, unbiased_high) = np.quantile(accuracies, INTERVAL, axis=0)
    return {
        "num_texts": count,
        "texts_low": low,
        "texts_high": high,
        "unbiased_low": unbiased_low,
        "unbiased_high": unbiased_high,
    }


def derivatives(
    model, texts: Sequence, letters: Sequence[int], depths: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return of each form what it multiplies a state at each depth with to read each letter, by
    text: (texts, letters, depths, D).

    texts: sequences of tokens. The state at depth l is what layer l reads. PUBLISHED has no text of
    less than SHORTEST tokens, and is left out where there is none, or where `_directions` has none.
    """
    import torch  # here, since the plan loads no torch

    directions, by_form = _directions(model, letters), {LAST_TOKEN: [], PUBLISHED: []}
    for text in texts:
        with torch.enable_grad():
            states, final, logits = _states_and_logits(model, text, depths)
            targets = {LAST_TOKEN: (logits[list(letters)], slice(-1, None))}
            if directions is not None and len(text) >= SHORTEST:
                valid = slice(SKIPPED, -1)
                # a position has no effect on earlier ones, so this is the sum over t' >= t
                summed = (final[0, valid].float() @ directions.T).sum(dim=0)
                targets[PUBLISHED] = summed, valid
        for form, (of_letters, positions) in targets.items():
            of_text = []
            for target in of_letters:
                by_depth = torch.autograd.grad(target, states, retain_graph=True)
                means = [gradient[0, positions].float().mean(dim=0) for gradient in by_depth]
                of_text.append(torch.stack(means).cpu().numpy())
            by_form[form].append(of_text)
    if not by_form[PUBLISHED]:
        log.warning(
            "No published Jacobian lens: it needs texts of %s tokens, and a model that ends in an "
            "RMSNorm and a head without bias.",
            SHORTEST,
        )
    return {form: np.array(of_texts) for form, of_texts in by_form.items() if of_texts}


def _states_and_logits(
    model, tokens: Sequence[int], depths: Sequence[int]
) -> tuple[list, object, object]:
    """Return the states at each depth, (1, T, D), those after the last layer, (1, T, D), and the
    logits after the last token, (V,)."""
    import torch

    from lib.models.decoder import decoder_layers, residual_stream

    states, last = {}, len(decoder_layers(model))

    def keep(depth: int, state: torch.Tensor) -> None:
        # of frozen weights the graph of derivatives begins here
        states[depth] = state if state.requires_grad else state.requires_grad_()

    ids = torch.tensor([tokens], device=model.device)
    with residual_stream(model, keep, [*depths, last]):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
    return [states[depth] for depth in depths], states[last], logits[0, -1].float()


def _directions(model, letters: Sequence[int]):
    """Return w_a * gain of each letter, (letters, D; fp32), or None if the final norm is no RMSNorm
    or the head has a bias, whose part in a reading depends on its scale.

    The gain is what the norm makes of ones, up to a factor that all letters share.
    """
    import torch

    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None:
        return None
    weight = head.weight[list(letters)].detach().float()
    ones = torch.ones(weight.shape[1], device=weight.device)
    ramp = torch.linspace(-0.5, 1, len(ones), device=weight.device)
    gain, of_ramp = _normed(model, torch.stack([ones, ramp]))
    expected = gain * ramp / ramp.square().mean().sqrt()
    # bf16 rounds by up to 0.004
    is_rms = (of_ramp - expected).norm() < 0.02 * expected.norm()
    return weight * gain if is_rms else None


def _normed(model, states):
    """Return what the final norm makes of states, (N, D; fp32): the last layer's output is
    replaced."""
    import torch

    from lib.models.decoder import decoder_layers, run_decoder

    def replaced(module, args, output):
        if isinstance(output, torch.Tensor):
            return states[None].to(output)
        return (states[None].to(output[0]), *output[1:])

    ids = torch.zeros(1, len(states), dtype=torch.long, device=model.device)
    hook = decoder_layers(model)[-1].register_forward_hook(replaced)
    with hook, torch.no_grad():
        return run_decoder(model, ids)[0].float()


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content",
    experiments=(lens,),
    kinds={"lens": fetching.each(_measured)},
    # a row a form and depth; `choices`: the reading of each letter; and columns of `over_texts`
    tables={"lens": readings.table},
)
