"""The self-contained report.html of a run: sections, figures, pages.

It shows what `evaluate` and `generate` found and measures nothing of its own.
"""
