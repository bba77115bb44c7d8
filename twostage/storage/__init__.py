"""Files of a run: atomic writes, manifests, checkpoints, codes. No model and no data set."""
