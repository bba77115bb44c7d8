"""A run folder: its trainings, models, codes, places and device. Verbs ask here for whatever is on disk.

Nothing here scores, draws or samples; the formats of the files themselves are `twostage.storage`.
"""
