"""One training loop for every model, in the order in which things happen, and what it needs."""
