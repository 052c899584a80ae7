"""Tasks of lm-eval (the extra `parity`): its documents, requests, tokens and scores.

`lm_eval:winogrande` is one of its own tasks, whose data come from the hub. `lm_eval:my/task.yaml`
is a task file, whose data may lie on this machine. What is computed is left to the sweep.
"""

import difflib
import os
from functools import cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from .data.encoding import Row
from .data.sets import DataError, evenly_spaced
from .storage import first_line
from .tasks import LM_EVAL, TaskSpec

MAIN_METRICS = ("acc_norm", "acc")  # the first one that a task has is its score
READ = ("loglikelihood", "multiple_choice")  # kinds of tasks
UNLIKELY = -1e4  # nats, of a choice that a baseline does not choose


def read_task(
    name: str, questions: int | None = None, shots: int | None = None
) -> tuple[str, list[dict], TaskSpec]:
    """Return the name, `questions` documents (None: all), evenly spaced, and row of such a task.

    shots: solved examples before each, in place of the task's own number; drawn as lm-eval draws
    them. The score is acc_norm, where the task has it, else acc, else its first mean.
    Raises ValueError for a task that is not known, or that is not scored by log-likelihoods;
    DataError if its data cannot be had.
    """
    theirs = _loaded(name)
    metric = _metric(name, theirs)
    build = partial(_examples, name, theirs, metric)
    examples = build(questions, shots)
    every = [example["choices"] for example in examples if "choices" in example]
    longest = max(every, key=len, default=[])
    listed = all(choices == longest[: len(choices)] for choices in every)
    spec = TaskSpec(
        build,
        data=theirs.task_name,
        label=f"{theirs.task_name} ({metric} of lm-eval)",
        counts=("questions", "shots"),
        rows=rows,
        score=None if every else partial(_score, theirs, metric),
        correct=partial(_correct, theirs, metric),
        per_character=metric == "acc_norm",
        has_places=listed,
        reads_likeliest=not every,
    )
    return f"{LM_EVAL}{theirs.task_name}", examples, spec


@cache
def _manager() -> TaskManager:
    """Return what knows all tasks of lm-eval: it reads thousands of files, in seconds."""
    return TaskManager()


def _loaded(name: str):
    """Return lm-eval's own task, with its data. Raises as `read_task`."""
    wanted = name.removeprefix(LM_EVAL)
    is_file = wanted.endswith((".yaml", ".yml"))
    if is_file and not Path(wanted).expanduser().is_file():
        raise ValueError(f"{name}: there is no task file {wanted}.")
    manager = TaskManager(include_defaults=False) if is_file else _manager()
    if not is_file:
        _check_name(name, wanted, manager)
    try:
        (theirs,) = manager.load(wanted)["tasks"].values()
    except Exception as error:  # whatever its reader stumbles over
        raise DataError(
            f"lm-eval could not load {name} ({first_line(error)}): check the network and "
            "HF_HUB_OFFLINE, or name files of yours in a task file (dataset_path, "
            f"dataset_kwargs), as in {LM_EVAL}my/task.yaml."
        ) from error
    _check_kind(name, theirs.OUTPUT_TYPE)
    return theirs


def _check_name(name: str, wanted: str, manager: TaskManager) -> None:
    """Raise ValueError unless lm-eval has one task of this name that can be scored here."""
    if wanted in (*manager.all_groups, *manager.all_tags):
        members = [task for task in manager.all_subtasks if task.startswith(f"{wanted}_")]
        hint = f", as in {LM_EVAL}{members[0]}" if members else ""
        raise ValueError(f"{name} is a group of tasks: name one of them{hint}.")
    if wanted not in manager.all_subtasks:
        alike = difflib.get_close_matches(wanted, manager.all_subtasks, 3)
        hint = f": did you mean {', '.join(alike)}?" if alike else "."
        raise ValueError(f"{name}: lm-eval has no task {wanted!r}{hint}")
    kind = manager.task_index[wanted].cfg.get("output_type")
    if kind:  # a task that is a class says it only when its data are there
        _check_kind(name, kind)


def _check_kind(name: str, kind: str) -> None:
    """Raise ValueError for a kind of task that asks for more than log-likelihoods of answers."""
    if kind not in READ:
        does = "writes its answers" if kind == "generate_until" else f"is of the kind {kind}"
        raise ValueError(
            f"{name} {does}: only tasks of the kinds {' and '.join(READ)} can be scored here."
        )


def _metric(name: str, theirs) -> str:
    """Return the metric that is a task's score: a mean over documents."""
    higher = theirs.higher_is_better()
    means = [metric for metric, how in theirs.aggregation().items() if how is mean]
    means = [metric for metric in means if higher[metric]]
    if not means:
        raise ValueError(f"{name} has no metric that is a mean over its questions.")
    return next((metric for metric in MAIN_METRICS if metric in means), means[0])


def _examples(
    name: str, theirs, metric: str, questions: int | None = None, shots: int | None = None
) -> list[dict]:
    """Return the documents of a task as examples, each with the requests that lm-eval makes of it.

    requests: pairs of a context and what continues it. chance: the mean score of a choice taken
    blindly. Where each document has one right choice also choices and answer, its place.
    """
    if shots is not None or theirs.config.num_fewshot is None:
        theirs.set_config("num_fewshot", shots or 0)
    theirs.set_fewshot_seed(DEFAULT_OTHER_SEED)
    places = None
    if questions is not None:
        places = {*evenly_spaced(range(len(theirs.eval_docs)), questions)}
    theirs.build_all_requests(samples=places)
    by_document = groupby(theirs.instances, key=lambda instance: instance.doc_id)
    examples = []
    for _, instances in by_document:
        document, requests = None, []
        for instance in instances:
            if len(instance.args) != 2:
                raise ValueError(f"{name} asks about images or sounds, which are not read here.")
            document = instance.doc
            requests.append(instance.args)
        example = {"requests": requests, "document": document, "weight": 1}
        examples.append(example | _answer(theirs, metric, document, len(requests)))
    if not all("choices" in example for example in examples):
        for example in examples:
            example.pop("choices", None)
    _group(examples)
    return examples


def _answer(theirs, metric: str, document: dict, num_requests: int) -> dict:
    """Return chance, and if there is one right choice, the choices and its place."""
    scores = []
    for place in range(num_requests):
        values = np.full(num_requests, UNLIKELY)
        values[place] = 0
        scores.append(_value(theirs, metric, document, values, False))
    chance = {"chance": float(np.mean(scores))}
    if theirs.OUTPUT_TYPE != "multiple_choice" or theirs.config.process_results:
        return chance
    choices = theirs.doc_to_choice(document)
    if sorted(scores) != [0.0] * (num_requests - 1) + [1.0] or len(choices) != num_requests:
        return chance  # several right ones, or more requests than choices
    texts = [f" {choice}" for choice in choices]
    return chance | {"choices": texts, "answer": scores.index(1.0)}


def _group(examples: list[dict]) -> None:
    """Note which rows share a prefix: of all documents, if it is longer than what differs."""
    contexts = [example["requests"][0][0] for example in examples]
    shared = len(os.path.commonprefix(contexts))
    own = np.mean([len(context) - shared for context in contexts])
    for place, example in enumerate(examples):
        example["group"] = "all" if shared > own else place


class Encoder(HFLM):
    """lm-eval's own class of a model, which here only makes tokens of requests."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.backend = "causal"
        self.add_bos_token = self.custom_prefix_token_id = None
        self.enable_thinking = False

    def _loglikelihood_tokens(self, requests: list[tuple], **_) -> list[tuple]:
        return [(context, continuation) for _, context, continuation in requests]


def rows(example: dict, tokenizer) -> list[Row]:
    """Return a row per request; one for all, if each continues the same tokens by one token."""
    requests = example.get("requests")
    if not requests:  # of `Task.without_question`
        requests = [(example["prompt"], choice) for choice in example["choices"]]
    instances = [Instance("loglikelihood", {}, request, 0) for request in requests]
    pairs = Encoder(tokenizer).loglikelihood(instances, disable_tqdm=True)
    contexts = {tuple(context) for context, _ in pairs}
    one_token_each = all(len(continuation) == 1 for _, continuation in pairs)
    if "choices" in example and one_token_each and len(contexts) == 1:
        targets = tuple(token for _, (token,) in pairs)
        return [Row(contexts.pop(), (targets,), example["group"])]
    made = []
    for context, continuation in pairs:
        targets = tuple((token,) for token in continuation)
        made.append(Row((*context, *continuation[:-1]), targets, example["group"]))
    return made


def _value(theirs, metric: str, document: dict, values: np.ndarray, likeliest) -> float:
    """Return lm-eval's own score of a document; likeliest: of each request, or of all."""
    flags = np.broadcast_to(likeliest, len(values)).tolist()
    results = list(zip(values.tolist(), flags, strict=True))
    return float(theirs.process_results(document, results)[metric])


def _correct(theirs, metric: str, example: dict, values: np.ndarray) -> float:
    """Return the score of a document with choices, from the log-likelihood of each."""
    return _value(theirs, metric, example["document"], values, False)


def _score(theirs, metric: str, example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Return the score of another document, and its weight.

    Of each request the log-probabilities of its tokens, then whether these are the likeliest.
    """
    values = np.array([output[:-1].sum() for output in outputs])
    likeliest = [bool(output[-1]) for output in outputs]
    return _value(theirs, metric, example["document"], values, likeliest), 1
