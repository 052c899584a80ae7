"""Speed as ratios: what the library does, timed against a reference in the same run.

`python -m benchmarks` prints one table and writes it to benchmarks/results/first_light.md.
"""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # bars cost time; read when tqdm is first imported
