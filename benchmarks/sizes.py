"""How much each row measures: FULL for the table, TINY to see that every row still runs."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Size:
    """Counts of a run of the table."""

    name: str
    model: str
    repeats: int  # turns of each pair; single passes over much data are timed once
    similarity_sequences: int  # row 1, and the blocks of rows 3, 4 and 6
    map_sequences: int  # row 2, where the reference reads them L - 1 times
    tokens: int  # of a C4 sequence
    arc_easy_questions: int
    c4_sequences: int
    damage_sequences: int  # row 11, once for every block
    mmlu_subjects: int
    mmlu_questions: int  # per subject
    mmlu_shots: int
    mmlu_block_sizes: tuple[int, ...]
    harness_batch: int  # lm-eval's batch size
    healing_steps: int
    packing_tokens: int  # longest sequence of row 8


FULL = Size(
    name="full",
    model="smollm2-135m",
    repeats=2,
    similarity_sequences=64,
    map_sequences=8,
    tokens=128,
    arc_easy_questions=40,
    c4_sequences=16,
    damage_sequences=4,
    mmlu_subjects=4,
    mmlu_questions=25,
    mmlu_shots=5,
    mmlu_block_sizes=(2, 4, 6, 8, 10, 12, 14, 16),
    harness_batch=8,
    healing_steps=3,
    packing_tokens=512,
)

TINY = replace(
    FULL,
    name="tiny",
    model="tiny-random",
    repeats=1,
    similarity_sequences=8,
    map_sequences=2,
    tokens=24,
    arc_easy_questions=4,
    c4_sequences=4,
    damage_sequences=2,
    mmlu_subjects=2,
    mmlu_questions=2,
    mmlu_shots=1,
    mmlu_block_sizes=(2,),
    healing_steps=1,
    packing_tokens=32,
)
