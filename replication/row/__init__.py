"""A row of the ledger: what one model answers by letter and by content, in a small JSON file.

`python -m replication.row owner/name` measures and writes `data/rows/<model>.json`; `python -m
scripts.rows` makes those of the recorded run, and draws all.
"""
