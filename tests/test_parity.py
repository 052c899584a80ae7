"""MMLU against lm-eval's own tasks on the same questions (make test-all)."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import harness
from lib import sweep
from lib.blocks import UNPRUNED, Block
from lib.models import loading
from lib.pruning import dropped
from replication import profiles
from replication.measure import request

pytestmark = pytest.mark.real
PROFILE = replace(profiles.get("quick"), mmlu_subjects=2, mmlu_questions=3)
FORMS = {"mmlu": harness.BY_LETTER, "mmlu_content": harness.BY_CONTENT}


@pytest.fixture(scope="module")
def base():
    pytest.importorskip("lm_eval")
    return loading.load("smollm2-135m", dtype="float32")


@pytest.mark.parametrize("block", [UNPRUNED, Block(13, 2)], ids=["unpruned", "pruned"])
@pytest.mark.parametrize("name", FORMS)
def test_mmlu_is_that_of_lm_eval(base, block, tmp_path, name):
    """Prompts, log-likelihoods of all letters or of all answers' texts, and accuracy by them."""
    model, tokenizer = base
    counts = PROFILE.mmlu_subjects, PROFILE.mmlu_questions, PROFILE.mmlu_shots
    names = harness.write_tasks(tmp_path, *counts, FORMS[name])
    with dropped(model, block):
        samples = harness.evaluate(*base, names, harness.task_manager(tmp_path), batch_size=1)
    task = request.task_of(request.of_task(name, PROFILE))
    prompts = [example["prompt"] for example in task.examples]
    assert [sample["arguments"][0][0] for sample in samples] == prompts
    table = sweep.sweep(model, tokenizer, [block], [task]).set_index("block_size")
    ours = table.loc[block.size]
    expected = [harness.log_probabilities(sample) for sample in samples]
    np.testing.assert_allclose(np.stack(ours.choices), expected, atol=5e-3)
    assert ours.examples.tolist() == [sample["acc"] for sample in samples]
