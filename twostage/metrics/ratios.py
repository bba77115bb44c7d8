"""Ratios of measured numbers, which are absent where there is nothing to divide by: never infinite, never NaN."""


def ratio(part: float | None, whole: float | None) -> float | None:
    """part / whole; None where either is absent or the whole is zero: a dash in a table, null in JSON."""
    return None if part is None or whole is None or whole == 0 else float(part / whole)
