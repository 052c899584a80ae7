"""The figures with what they show, and the notebooks that draw them."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Notebook:
    """A notebook, the figures it leaves, and its minutes in `quick` on two cores."""

    file: str
    figures: tuple[str, ...]
    minutes: float


FIGURES = {  # what each shows, and the notebooks that draw it
    "figure_1a": ("the method's flow", ["01"]),
    "figure_1b": ("one cut, drawn from a `Block`", ["01"]),
    "figure_1c": ("d(l, l+n) against l, a curve per n", ["01"]),
    "figure_1d": ("question answering and loss, healed and unhealed", ["03"]),
    "figure_2": ("MMLU (and ARC-Easy) against the fraction dropped", ["02", "03"]),
    "figure_3": ("C4 loss against the fraction dropped", ["02", "03"]),
    "figure_4": ("similarity heatmaps", ["01"]),
    "figure_5": ("simple against similarity-informed", ["02", "04"]),
    "figure_6": ("BoolQ: accuracy and AUC against the fraction dropped", ["02", "03"]),
    "figure_7": ("order and number of few-shot examples", ["05"]),
    "figure_8": ("seeds of healing", ["06"]),
    "figure_9": ("LoRA ranks", ["07"]),
    "figure_training": ("training loss against the steps of healing", ["03"]),
    "figure_dose": ("loss and questions against the tokens of healing", ["03"]),
    "figure_islands": ("islands of similar layers, in a Qwen and in the run's models", ["08"]),
    "figure_cost": ("memory and latency against the layers dropped", ["09"]),
    "figure_beyond": ("HellaSwag and GSM8K against the fraction dropped", ["10"]),
    "figure_measures": ("the same answers by four measures", ["10"]),
    "figure_letters": ("the same questions by letter and by content", ["10"]),
    "figure_cuts": ("MMLU and ARC-Easy with three kinds of cut, one of them an early exit", ["10"]),
    "figure_books": ("the same questions with and without their passages", ["10"]),
    "figure_damage": ("the loss without each block, next to its distance", ["11"]),
    "figure_criteria": ("the damage of the block that each criterion chooses", ["11"]),
    "figure_layers": ("each layer's update, and the damage without it", ["11"]),
    "figure_repair": ("loss and ARC-Easy: plain cut, healed, linear maps", ["12"]),
    "figure_repair_cost": ("what each repair gains for its seconds and numbers", ["12"]),
    "figure_claims": ("the paper's claims: what holds", ["13"]),
}
MINUTES = {
    "00_tour": 1,
    "01_similarity_heatmaps": 1,
    "02_pruning_curves": 5,
    "03_healing": 9,
    "04_simple_vs_similarity": 1,
    "05_ablation_prompts": 2,
    "06_ablation_seeds": 2,
    "07_ablation_lora_rank": 2,
    "08_qwen_islands": 1,
    "09_inference_cost": 1,
    "10_knowledge_and_reasoning": 5,
    "11_which_block": 3,
    "12_repair": 4,
    "13_claims": 1,
}
NOTEBOOKS = {
    file[:2]: Notebook(file, tuple(n for n, (_, by) in FIGURES.items() if file[:2] in by), minutes)
    for file, minutes in MINUTES.items()
}
_drafts = tuple(f"{name}_unhealed" for name in NOTEBOOKS["02"].figures)  # 03 and 04 finish them
NOTEBOOKS["02"] = replace(NOTEBOOKS["02"], figures=_drafts)
