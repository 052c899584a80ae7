"""Our own questions, one file each: what it asks for, how it measures, its statistic, its figure.

Of the paper's path, notebooks 00 and 03 show `dose`, and claim 4c is judged on the early exits of
`letters`; no other folder but `run` imports a file of this one. A file loads torch only where it
computes: the plan and the runner read its requests.
"""
