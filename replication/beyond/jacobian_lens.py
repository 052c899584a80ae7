"""Can a linear reading that is fitted to nothing tell answers from preferences?

Notebook 10. The Jacobian lens reads the state x at the last token after l layers by the mean
derivative of the letters' logits by that state, over the last tokens of C4 texts:

    reading of letter a = E[∂ logit_a / ∂ x^(l)] · x^(l)

No label and no state is fitted. It says what a state at this depth does to the letters on average,
which is what the dropped layers would have made of it. It is no measure of what a model thinks.
"""

from collections.abc import Sequence

import numpy as np

from lib.data import sets
from replication import measure
from replication.beyond import depth_probe
from replication.measure import fetching
from replication.measure.experiments import unpruned
from replication.measure.request import Request, data_source, task_of
from replication.profiles import Profile

VERSION = 1  # bumped by hand when the numbers change
TASK = "arc_easy_letters"
EXITS = range(5, 9)  # layers dropped
TEXTS = 48  # of C4


def lens(name: str, distances, profile: Profile) -> list[Request]:
    """Return the reading of ARC-Easy by letter at EXITS, asked as `letters.forms` asks it, of the
    main model."""
    depths = [distances.num_layers - size for size in EXITS if size < distances.num_layers]
    is_asked = depths and profile.ablation_questions and profile.map_sequences
    if name != profile.main_model or not is_asked:
        return []
    few_shot = profile.with_prompt(profile.mmlu_shots)
    (whole,) = unpruned(name, few_shot, [TASK])
    params = {
        "depths": depths,
        "lens_texts": min(TEXTS, profile.map_sequences),
        "lens_tokens": profile.map_tokens,
        "lens_version": VERSION,
    }
    return [Request("lens", whole.params | params, whole.labels)]


measure.TABLES["lens"] = depth_probe.table  # a row a depth; `choices`: the reading of each letter


def _measured(params: dict) -> list[dict]:
    """Return a row a depth: the readings of every question, and how many are right."""
    model, tokenizer = fetching.loaded(params)
    task = depth_probe.with_four_options(task_of(params))
    questions = [row for (row,) in task.rows(tokenizer)]
    letters = questions[0].target_ids[0]  # the same tokens in each question
    texts = calibration_texts(tokenizer, params)
    readings = read(model, texts, letters, [row.tokens for row in questions], params["depths"])
    right = depth_probe.answers_of(task)
    return [
        depth_probe.row_of_letters(depth, "lens", of_depth, *right)
        for depth, of_depth in zip(params["depths"], readings, strict=True)
    ]


fetching.MEASURE["lens"] = fetching.each(_measured)


def calibration_texts(tokenizer, params: dict) -> list[list[int]]:
    """Return the texts of C4 to heal on whose derivatives the lens takes, as tokens."""
    texts = sets.c4("train", data_source(params), params["lens_texts"])
    return [tokenizer(text).input_ids[: params["lens_tokens"]] for text in texts]


def read(model, texts: Sequence, letters: Sequence[int], prompts: Sequence, depths: Sequence[int]):
    """Return the reading of each letter at each depth, (depths, prompts, letters).

    texts, prompts: sequences of tokens. Both the derivatives and the states that they read are of
    the last token. The state at depth l is what layer l reads.
    """
    import torch  # here, since the plan loads no torch

    derivatives = 0.0
    for text in texts:
        with torch.enable_grad():
            states, logits = _last(model, text, depths)
        by_letter = [torch.autograd.grad(logits[a], states, retain_graph=True) for a in letters]
        derivatives += np.array([[_array(at[0, -1]) for at in depth] for depth in by_letter])
    readings = []
    for prompt in prompts:
        with torch.no_grad():
            states, _ = _last(model, prompt, depths)
        last = np.array([_array(state[0, -1]) for state in states])
        readings.append(np.einsum("adk,dk->da", derivatives / len(texts), last))
    return np.array(readings).swapaxes(0, 1)


def _last(model, tokens: Sequence[int], depths: Sequence[int]) -> tuple[list, object]:
    """Return the states at each depth, (1, T, D), and the logits (V,) after the last token."""
    import torch

    from lib.models.decoder import residual_stream

    states = {}

    def keep(depth: int, state: torch.Tensor) -> None:
        # of frozen weights the graph of derivatives begins here
        begins = torch.is_grad_enabled() and not state.requires_grad
        states[depth] = state.requires_grad_() if begins else state

    ids = torch.tensor([tokens], device=model.device)
    with residual_stream(model, keep, depths):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
    return [states[depth] for depth in depths], logits[0, -1].float()


def _array(tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
