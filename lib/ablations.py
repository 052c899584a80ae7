"""What figures 7, 8 and 9 vary, as `curves.variants` takes it."""

from lib.curves import STRATEGIES
from lib.profiles import Profile

SHOTS = (0, 1, 3, 5)
ORDERS = (0, 1, 2)  # 0: that of the data set; else the seed of a shuffle
SEEDS = (0, 1, 2)
TASKS = {
    "prompts": ["mmlu", "arc_easy"],
    "seeds": ["mmlu", "arc_easy", "c4"],
    "ranks": ["mmlu", "arc_easy", "c4"],
}


def prompts(profile: Profile) -> dict:
    """Figure 7: the number of few-shot examples, and the order of five."""
    number = {f"{k} examples": (profile.with_prompt(k), {}) for k in SHOTS}
    order = {f"order {k}": (profile.with_prompt(max(SHOTS), order=k), {}) for k in ORDERS}
    return {"number": number, "order": order}


def seeds(profile: Profile) -> dict:
    """Figure 8: the seed of healing."""
    return {"seeds": {f"seed {seed}": (profile, {"seed": seed}) for seed in SEEDS}}


def ranks(profile: Profile) -> dict:
    """Figure 9: the LoRA rank, of both strategies."""
    both = {f"rank {rank}": (profile, {"rank": rank}) for rank in profile.ablation_ranks}
    return dict.fromkeys(STRATEGIES, both)
