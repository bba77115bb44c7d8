"""The self-contained report.html of a run: sections, figures, pages."""
