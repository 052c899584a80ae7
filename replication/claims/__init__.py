"""The paper's 13 claims: a run's tables in, verdicts out.

Looked up when they are asked for: who shows verdicts does not wait for torch.
"""

from lib.lazy import lazy

__getattr__ = lazy(
    __name__,
    {
        "verdicts": "checks",
        "in_words": "report",
        "gather": "tables",
    },
)
