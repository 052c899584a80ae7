"""How much each row measures: FULL for the table, TINY to see that every row still runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Counts of a run of the table."""

    model: str
    repeats: int  # turns of each pair; single passes over much data are timed once
    similarity_sequences: int  # row 1, and the blocks of row 3
    tokens: int  # of a C4 sequence
    arc_easy_questions: int
    damage_sequences: int  # row 11, once for every block


FULL = Size("smollm2-135m", 2, 64, 128, 40, 4)
TINY = Size("tiny-random", 1, 8, 24, 4, 2)
