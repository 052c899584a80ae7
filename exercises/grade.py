"""Grade write_it.ipynb: `python exercises/grade.py handed-in/*.ipynb > grades.csv`.

A row has the file and the functions that their checks call right. Each notebook runs whole.
"""

import sys

import checks
import nbclient
import nbformat

for file in sys.argv[1:]:
    notebook = nbformat.read(file, 4)
    nbclient.execute(notebook, allow_errors=True, timeout=600, interrupt_on_timeout=True)
    printed = nbformat.writes(notebook)
    print(file, *(name for name in checks.CHECKS if f"{name} is right:" in printed), sep=",")
