"""lm-evaluation-harness with its own tasks, on the questions that the library reads."""

import json
from pathlib import Path

from lib.data import sets

CHOICES = "".join(f"\n{letter}. {{{{choices[{i}]}}}}" for i, letter in enumerate("ABCD"))
QUESTION = "{{question}}" + CHOICES + "\nAnswer:"


BY_LETTER = {  # but for what lm-eval changes in the original: two spaces, nothing stripped
    "template": "mmlu/default/_default_template_yaml",
    "description": "The following are multiple choice questions (with answers) about  {}.\n\n",
    "doc_to_text": QUESTION,
}
BY_CONTENT = {  # as lm-eval has it
    "template": "mmlu/continuation/_continuation_template_yaml",
    "description": "The following are questions (with answers) about {}.\n\n",
}


def write_tasks(
    folder: Path, subjects: int, questions: int, shots: int, form: dict = BY_LETTER
) -> list[str]:
    """Task files for lm-eval, one a subject: a template of lm-eval's MMLU on local questions.

    Returns the tasks' names, in the order in which the library reads the subjects.
    """
    names = []
    for subject, splits in sets.mmlu("wheels", subjects, questions).items():
        about = form["description"].format(subject.replace("_", " "))
        changes = form | {"description": about, "num_fewshot": shots}
        names.append(write_task(folder, subject, splits, **changes))
    return names


def write_other_tasks(folder: Path, questions: int, shots: int = 0) -> dict[str, str]:
    """Task files for lm-eval of WinoGrande, HellaSwag and anatomy of MMLU, this after `shots`.

    Returns for each task its metric.
    """
    splits = {
        name: {"validation": sets.questions(name, "wheels", questions)}
        for name in ("winogrande", "hellaswag")
    }
    splits["mmlu_anatomy"] = sets.mmlu("wheels", 57, questions)["anatomy"]
    one_split = {"training_split": None}
    changes = {
        "winogrande": one_split | {"template": "winogrande/default.yaml"},
        "hellaswag": one_split | {"template": "hellaswag/hellaswag.yaml"},
        "mmlu_anatomy": {"template": "mmlu/default/mmlu_anatomy.yaml", "num_fewshot": shots},
    }
    names = [write_task(folder, name, rows, **changes[name]) for name, rows in splits.items()]
    return dict(zip(names, ("acc", "acc_norm", "acc"), strict=True))


def write_task(
    folder: Path, name: str, splits: dict[str, list[dict]], template: str, **changes
) -> str:
    """A task file for lm-eval: a file of its own tasks on local rows, by split; returns its name.

    changes: entries that are not those of the template.
    """
    import lm_eval.tasks

    files = {
        split: _write_rows(folder / f"{name}_{split}.jsonl", rows) for split, rows in splits.items()
    }
    config = {
        "include": str(Path(lm_eval.tasks.__file__).parent / template),
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
    } | changes
    (folder / f"{config['task']}.yaml").write_text(json.dumps(config))  # JSON is YAML
    return config["task"]


def _write_rows(file: Path, rows: list[dict]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def task_manager(folder: Path):
    """Knows the tasks of `folder` only: lm-eval's thousands take seconds to list."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(model, tokenizer, names: list[str], manager, batch_size: int) -> list[dict]:
    """lm-eval's samples of one model in memory, task by task, in the order of the questions."""
    samples = evaluated(model, tokenizer, names, manager, batch_size)["samples"]
    ordered = []
    for name in names:
        ordered += sorted(samples[name], key=lambda sample: sample["doc_id"])
    return ordered


def evaluated(model, tokenizer, names: list[str], manager, batch_size: int, **options) -> dict:
    """All that lm-eval returns of one model in memory; options: of `lm_eval.simple_evaluate`."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    options |= {"task_manager": manager, "log_samples": True, "bootstrap_iters": 0}
    return lm_eval.simple_evaluate(model=wrapped, tasks=names, **options)


def log_probabilities(sample: dict) -> list[float]:
    """Of the choices of one question."""
    return [float(value) for value, _ in sample["filtered_resps"]]
