"""Speed, a first GPU: what is measured of the code itself, and not of the paper."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # bars cost time; read when tqdm is first imported
