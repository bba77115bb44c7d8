"""A run folder: its trainings, models, codes and devices. Verbs ask here for whatever is on disk."""
