"""Our own questions, one file each: what it asks for, how it measures, its statistic, its figure.
Those of notebook 10 share much, so they are a folder: `letters`.

Nothing of the paper's path (notebooks 00 to 09, `measure`, `figures`, `analysis`, `claims`) imports
a file of this folder. Whoever imports one has all of them registered, so what is asked does not
depend on which. A file loads torch only where it computes: the plan and the runner read its
requests.
"""

from replication.beyond import last_layers, letters, repair, repeat, which_block
from replication.measure.question import register

QUESTIONS = (  # in the order of the gallery
    *letters.QUESTIONS,
    which_block.QUESTION,
    repeat.QUESTION,
    which_block.ONE_LAYER,
    last_layers.QUESTION,
    repair.QUESTION,
)
register(QUESTIONS)
