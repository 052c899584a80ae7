"""Our own questions, one file each: what it asks for, how it measures, its statistic, its figure.

Nothing of the paper's path imports a file of this folder. A file loads torch only where it
computes: the plan and the runner read its requests.
"""
