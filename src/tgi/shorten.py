"""Long texts where people read them: log lines and messages of errors.

What a client sends may be megabytes long; a line that repeats it whole, once for each of 128 samples, fills
disks and holds up everybody while it is written.
"""

from __future__ import annotations


def shorten(text: str, limit: int) -> str:
    """The text, or its first `limit` characters and how many there are."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def size(count: int) -> str:
    """Bytes for people: 1.50 GiB."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.2f} {unit}"
