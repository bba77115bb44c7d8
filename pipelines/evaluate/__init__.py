"""Scores of a run: rows, tables, diagnosis, sample quality. Drawing pages lives in `report`."""
