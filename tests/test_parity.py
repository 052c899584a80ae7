"""MMLU and HellaSwag against lm-eval's own tasks on the same questions (make test-all)."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import harness
from lib import evaluation, sweep
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.models import loading
from lib.pruning import dropped
from replication import profiles
from replication.measure import request

pytestmark = pytest.mark.real
BLOCK = Block(13, 2)
PROFILE = replace(
    profiles.get("quick"),
    hellaswag_questions=6,
    mmlu_subjects=2,
    mmlu_questions=3,
)


@pytest.fixture(scope="module")
def base():
    pytest.importorskip("lm_eval")
    return loading.load("smollm2-135m", dtype="float32")


@pytest.fixture(params=[UNPRUNED, BLOCK], ids=["unpruned", "pruned"])
def block(request):
    return request.param


def theirs(base, block, folder, names: list[str]) -> list[dict]:
    with dropped(base[0], block):
        return harness.evaluate(*base, names, harness.task_manager(folder), batch_size=1)


def check(base, block, task, samples: list[dict], metric: str, atol: float) -> None:
    """Our likelihoods of each question's four choices, and the scores, are lm-eval's.

    A choice is a row, or a question is a row that scores four letters.
    """
    model, tokenizer = base
    examples = task.rows(tokenizer)
    flat = [row for rows in examples for row in rows]
    swept = sweep.target_logprobs(model, [UNPRUNED, block], flat, 2048, task.name)[block]
    count = len(flat) // len(examples)
    outputs = [swept[i : i + count] for i in range(0, len(swept), count)]
    likelihoods = []
    for rows in outputs:
        of_question = rows[0] if count == 1 else [row.sum() for row in rows]
        likelihoods.append(of_question)
    expected = [harness.log_probabilities(sample) for sample in samples]
    np.testing.assert_allclose(likelihoods, expected, atol=atol)
    values, _ = task.scores(outputs)
    assert values.tolist() == [sample[metric] for sample in samples]


def test_hellaswag_is_that_of_lm_eval(base, block, tmp_path):
    """Log-likelihoods of all endings, and accuracy by log-likelihood a character (acc_norm)."""
    task = evaluation.task_of(request.of_task("hellaswag", PROFILE))
    rows = sets.questions("hellaswag", "wheels", PROFILE.hellaswag_questions)
    name = harness.write_task(tmp_path, "hellaswag", {"validation": rows}, training_split=None)
    samples = theirs(base, block, tmp_path, [name])
    check(base, block, task, samples, "acc_norm", atol=2e-3)


FORMS = {"mmlu": harness.BY_LETTER, "mmlu_content": harness.BY_CONTENT}


@pytest.mark.parametrize("name", FORMS)
def test_mmlu_is_that_of_lm_eval(base, block, tmp_path, name):
    """Prompts, log-likelihoods of all letters or of all answers' texts, and accuracy by them."""
    task = evaluation.task_of(request.of_task(name, PROFILE))
    counts = PROFILE.mmlu_subjects, PROFILE.mmlu_questions, PROFILE.mmlu_shots
    names = harness.write_tasks(tmp_path, *counts, FORMS[name])
    samples = theirs(base, block, tmp_path, names)
    assert [s["arguments"][0][0] for s in samples] == [e["prompt"] for e in task.examples]
    check(base, block, task, samples, "acc", atol=5e-3)
