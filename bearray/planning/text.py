"""Plans in words and tables."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    for size, unit in ((86_400 * 3, "days"), (3_600 * 2, "h"), (120, "min")):
        if seconds >= size:
            value = seconds / {"days": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s"
