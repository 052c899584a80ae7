"""The notebooks, the figures that each leaves, and what these show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Notebook:
    """A notebook, the figures it leaves, and its minutes in `quick` on two cores."""

    file: str
    figures: tuple[str, ...]
    minutes: float


SHOWS = {
    "figure_1a": "the method's flow",
    "figure_1b": "one cut, drawn from a `Block`",
    "figure_1c": "d(l, l+n) against l, a curve per n",
    "figure_1d": "question answering and loss, healed and unhealed",
    "figure_2": "MMLU (and ARC-Easy) against the fraction dropped",
    "figure_3": "C4 loss against the fraction dropped",
    "figure_4": "similarity heatmaps",
    "figure_5": "simple against similarity-informed",
    "figure_6": "BoolQ against the fraction dropped",
    "figure_7": "order and number of few-shot examples",
    "figure_8": "seeds of healing",
    "figure_9": "LoRA ranks",
    "figure_islands": "islands of similar layers, in a Qwen and in the run's models",
    "figure_cost": "memory and latency against the layers dropped",
    "figure_beyond": "HellaSwag and GSM8K against the fraction dropped",
    "figure_damage": "the loss without each block, beside its distance",
    "figure_heal_where": "healing all layers, or those after the cut only",
    "figure_claims": "the paper's claims: what holds",
}
NOTEBOOKS = {
    "01": Notebook(
        "01_similarity_heatmaps", ("figure_1a", "figure_1b", "figure_1c", "figure_4"), 1
    ),
    "02": Notebook("02_pruning_curves", ("figure_2", "figure_3", "figure_5", "figure_6"), 4),
    "03": Notebook("03_healing", ("figure_1d", "figure_2", "figure_3", "figure_6"), 6),
    "04": Notebook("04_simple_vs_similarity", ("figure_5",), 1),
    "05": Notebook("05_ablation_prompts", ("figure_7",), 3),
    "06": Notebook("06_ablation_seeds", ("figure_8",), 2),
    "07": Notebook("07_ablation_lora_rank", ("figure_9",), 3),
    "08": Notebook("08_qwen_islands", ("figure_islands",), 1),
    "09": Notebook("09_inference_cost", ("figure_cost",), 1),
    "10": Notebook(
        "10_beyond_the_paper", ("figure_beyond", "figure_damage", "figure_heal_where"), 5
    ),
    "11": Notebook("11_claims", ("figure_claims",), 1),
}


def drawn_by() -> dict[str, list[str]]:
    """The figures, in the order of SHOWS, each with the numbers of the notebooks that draw it."""
    found = {
        name: [n for n, notebook in NOTEBOOKS.items() if name in notebook.figures] for name in SHOWS
    }
    return {name: numbers for name, numbers in found.items() if numbers}
