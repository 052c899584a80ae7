"""MMLU, HellaSwag and GSM8K against lm-eval's own tasks on the same questions, and the Jacobian
lens against TransformerLens's (make test-all)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import harness
from lib import evaluation, sweep
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.models import loading
from lib.prune import Options
from lib.pruning import dropped
from replication import profiles, unbias
from replication.beyond.letters import jacobian_lens
from replication.measure import request

pytestmark = pytest.mark.real
COUNTS = {"mmlu_subjects": 2, "mmlu_questions": 3, "hellaswag_questions": 6}
COUNTS |= {"gsm8k_generated": 3, "gsm8k_shots": 3, "gsm8k_new_tokens": 40}
PROFILE = replace(profiles.get("quick"), **COUNTS)
FORMS = {"mmlu": harness.BY_LETTER, "mmlu_content": harness.BY_CONTENT}


@pytest.fixture(scope="module")
def base():
    """The embedded model, which is the one that we think."""
    pytest.importorskip("lm_eval")
    model, tokenizer = loading.load("smollm2-135m", dtype="float32")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
    return model, tokenizer


@pytest.fixture(params=[UNPRUNED, Block(13, 2)], ids=["unpruned", "pruned"])
def block(request):
    return request.param


def theirs(base, block, folder, task, names: list[str]) -> list[dict]:
    """lm-eval's samples, whose prompts are those of `task`."""
    with dropped(base[0], block):
        samples = harness.evaluate(*base, names, harness.task_manager(folder), batch_size=1)
    samples = [sample for sample in samples if sample["filter"] in ("none", "strict-match")]
    prompts = [example["prompt"] for example in task.examples]
    assert [sample["arguments"][0][0] for sample in samples] == prompts
    return samples


@pytest.mark.parametrize("name", [*FORMS, "hellaswag"])
def test_choices_are_those_of_lm_eval(base, block, tmp_path, name):
    """Log-likelihoods of all letters, or of all answers' texts, and accuracy by them."""
    if name in FORMS:
        counts = PROFILE.mmlu_subjects, PROFILE.mmlu_questions, PROFILE.mmlu_shots
        names, metric = harness.write_tasks(tmp_path, *counts, FORMS[name]), "acc"
    else:
        rows = {"validation": sets.questions(name, "wheels", PROFILE.hellaswag_questions)}
        of_lm_eval = {"template": f"{name}/{name}.yaml", "training_split": None}
        names, metric = [harness.write_task(tmp_path, name, rows, **of_lm_eval)], "acc_norm"
    task = request.load_task(request.task_params(name, PROFILE))
    samples = theirs(base, block, tmp_path, task, names)
    table = sweep.sweep(*base, [block], [task]).set_index("block_size")
    ours = table.loc[block.size]
    expected = [harness.log_probabilities(sample) for sample in samples]
    np.testing.assert_allclose(np.stack(ours.choices), expected, atol=5e-3)
    assert ours.examples.tolist() == [sample[metric] for sample in samples]


ENDS = {  # one token or more is told; several answers are right
    "lambada": ("lambada/lambada_openai.yaml", "acc"),
    "truthfulqa": ("truthfulqa/truthfulqa_mc2.yaml", "acc"),
}


def test_tasks_of_lm_eval_through_the_sweep_score_what_lm_eval_scores(base, tmp_path):
    """Of three cuts; also a task without choices, and one with several right ones."""
    metrics = harness.write_other_tasks(tmp_path, 6, shots=5)
    texts = [" ".join(text.split()[:30]) for text in sets.c4("train", "wheels", 30)]
    targets = [{"choices": texts[i : i + 3], "labels": [1, i % 2, 0]} for i in (0, 1, 2)]
    asked = [{"question": f"{i}?", "mc2_targets": of} for i, of in enumerate(targets)]
    for name, rows in {
        "lambada": {"test": [{"text": text} for text in texts]},
        "truthfulqa": {"validation": asked},
    }.items():
        template, metric = ENDS[name]
        metrics[harness.write_task(tmp_path, name, rows, template, dataset_name=None)] = metric
    blocks = [UNPRUNED, Block(13, 2), Block(20, 6)]
    tasks = [evaluation.task(f"lm_eval:{tmp_path}/{name}.yaml") for name in metrics]
    table = sweep.sweep(*base, blocks, tasks).set_index(["task", "block_size"])
    manager, scores = harness.task_manager(tmp_path), set()
    for block in blocks:
        with dropped(base[0], block):
            theirs = harness.evaluated(*base, [*metrics], manager, 8)
        for name, metric in metrics.items():
            ours = table.loc[f"lm_eval:{name}", block.size]
            assert round(ours.value, 4) == round(theirs["results"][name][f"{metric},none"], 4)
            scores.add(ours.value)
            if ours.choices is not None:
                samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
                expected = [harness.log_probabilities(sample) for sample in samples]
                np.testing.assert_allclose(np.stack(ours.choices), expected, atol=5e-3)
    assert len(scores) > 5
    chances = {task.name.split("_")[-1]: round(task.chance(0), 3) for task in tasks}
    assert chances == {
        "winogrande": 0.5,
        "hellaswag": 0.25,
        "anatomy": 0.25,
        "lambada": 0.0,
        "truthfulqa": 0.444,
    }
    # as many letters are right by their place; of other choices the prompt shows no place
    assert [[*task.baselines()] for task in tasks] == [["shortest"]] * 2 + [["letter"], [], []]
    few = evaluation.task(f"lm_eval:{tmp_path}/{[*metrics][2]}.yaml", questions=2, shots=0)
    assert [example["requests"][0][0].count("Answer:") for example in few.examples] == [1, 1]


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("winogrand", "lm-eval has no task 'winogrand': did you mean winogrande"),
        ("mmlu", "is a group of tasks: name one of them, as in lm_eval:mmlu_"),
        ("gsm8k", "writes its answers: only tasks of the kinds"),
        ("wikitext", "is of the kind loglikelihood_rolling"),
        ("nope.yaml", "there is no task file nope.yaml"),
        ("winogrande", "could not load .* as in lm_eval:my/task.yaml"),
    ],
)
def test_a_task_of_lm_eval_that_cannot_be_scored_ends_with_a_sentence(name, sentence):
    pytest.importorskip("lm_eval")
    with pytest.raises((ValueError, sets.DataError), match=sentence):
        Options("any", layers=1, tasks=f"lm_eval:{name}").scored()


def test_a_log_of_lm_eval_is_read(base, block, tmp_path):
    """Written by its own `EvaluationTracker`, as by --log_samples, of 2 times 16 questions."""
    from lm_eval.loggers import EvaluationTracker

    names = harness.write_tasks(tmp_path, 2, 16, 0)
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    with dropped(base[0], block):
        manager = harness.task_manager(tmp_path)
        evaluated = harness.evaluated(*base, names, manager, 1, evaluation_tracker=tracker)
    expected, samples = [], evaluated.pop("samples")
    for name in names:
        in_order = sorted(samples[name], key=lambda sample: sample["doc_id"])
        expected += [harness.log_probabilities(sample) for sample in in_order]
    tracker.save_results_aggregated(results=evaluated, samples=samples)
    for name in names:
        tracker.save_results_samples(name, samples[name])
    files = sorted(tmp_path.glob("out/*/samples_*.jsonl"), key=lambda file: file.name)
    score = unbias.read(files)
    assert np.stack(score["choices"]).tolist() == expected
    accuracy = np.mean([evaluated["results"][name]["acc,none"] for name in names])
    assert f"as given:       {accuracy:.3f} ±" in unbias.report(score)


def test_gsm8k_is_that_of_lm_eval(base, block, tmp_path):
    """The texts that the model writes after the same examples, and whether they are right."""
    task = request.load_task(request.task_params("gsm8k", PROFILE))
    shots, scored = sets.gsm8k("wheels", PROFILE.gsm8k_generated, PROFILE.gsm8k_shots)
    written = {"max_gen_toks": PROFILE.gsm8k_new_tokens, "do_sample": False}
    name = harness.write_task(
        tmp_path,
        "gsm8k",
        {"train": shots, "test": scored},
        "gsm8k/gsm8k.yaml",
        num_fewshot=PROFILE.gsm8k_shots,
        fewshot_config={"sampler": "first_n", "split": "train"},
        generation_kwargs=written | {"until": ["Question:", "</s>", "<|im_end|>"]},
    )
    samples = theirs(base, block, tmp_path, task, [name])
    rows = [row for (row,) in task.rows(base[1])]
    limit = PROFILE.gsm8k_new_tokens
    ours = sweep.continuations(*base, [block], rows, limit, 2048)[block]
    assert ours == [sample["resps"][0][0] for sample in samples]
    values, _ = task.scores([[text] for text in ours])
    assert values.tolist() == [sample["exact_match"] for sample in samples]


def test_the_published_lens_is_that_of_transformer_lens():
    """Fitted by it on the same tokens, and read through the model's own norm and head."""
    pytest.importorskip("transformer_lens")
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.tools.analysis import JacobianLens

    model, tokenizer = loading.load("smollm2-135m", dtype="float32")
    texts = sets.c4("train", "wheels", 2)
    letters = [tokenizer(f" {letter}").input_ids[0] for letter in "ABCD"]
    depth, states = 26, 10 * torch.randn(20, 576, generator=torch.Generator().manual_seed(0))
    # TransformerLens puts the first token of all texts before each
    tokens = [[tokenizer.bos_token_id, *tokenizer(text).input_ids][:24] for text in texts]
    ours = jacobian_lens.derivatives(model, tokens, letters, [depth])["published"].mean(axis=0)
    bridge = TransformerBridge.boot_transformers(
        "HuggingFaceTB/SmolLM2-135M", hf_model=model, tokenizer=tokenizer, device="cpu"
    )
    options = {"corpus": "C4", "source_layers": [depth - 1], "dim_batch": 64, "max_seq_len": 24}
    lens = JacobianLens.fit(bridge, texts, **options)
    assert lens.n_prompts == len(texts)
    moved = lens.transport(states, depth - 1)
    with torch.no_grad():
        theirs = model.lm_head(model.model.norm(moved))[:, letters]
    scale = moved.square().mean(dim=1, keepdim=True).sqrt()  # of all letters, which ours has not
    np.testing.assert_allclose(states.numpy() @ ours[:, 0].T / scale, theirs, atol=2e-3)
