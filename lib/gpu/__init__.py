"""What only a GPU needs. A run on a CPU enters no file of it, and nothing here patches a library.

norms: fewer kernels. memory: rows that are recomputed, and micro-batches that fit. nf4: weights
that stay packed. Each says what it gains, and by which measurement. None was timed on a card yet.
"""
