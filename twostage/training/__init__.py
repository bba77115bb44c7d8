"""One training loop for every model, and what it needs: optimiser, precision, checks, record, interrupts.

What one model minimises is a task, which lives with the model.
"""
