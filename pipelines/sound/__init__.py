"""The verbs for recordings: what the files above do for images, with sound in and out."""
