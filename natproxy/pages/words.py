"""Numbers and times as people read them. Pure."""

from __future__ import annotations

_UNITS = ("B/s", "kB/s", "MB/s", "GB/s", "TB/s")
_DAY = 86_400


def rate(bytes_per_second: float) -> str:
    """Return ``1.2 MB/s``: at most three digits, thousands as the SI has them."""
    value = max(0.0, bytes_per_second)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000.0
    return f"{value:.1f} {unit}" if 0 < value < 9.95 and unit != "B/s" else f"{value:.0f} {unit}"


def delay(seconds: float | None) -> str:
    """Return ``0.42 ms`` or ``1.3 s``; a dash for None."""
    if seconds is None:
        return "-"
    if seconds >= 1.0:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000.0
    return f"{milliseconds:.2f} ms" if milliseconds < 1.0 else f"{milliseconds:.3g} ms"


def span(seconds: float) -> str:
    """Return ``12 s``, ``4 min``, ``3 h 20 min`` or ``12 d 4 h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    days, hours, minutes = whole // _DAY, whole % _DAY // 3600, whole % 3600 // 60
    parts = ((days, "d"), (hours, "h")) if days else ((hours, "h"), (minutes, "min"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def moment(time: str, today: str = "") -> str:
    """Return the time of day of an RFC 3339 time; the date before it where that is not the one of ``today``."""
    date, _, clock = time.partition("T")
    clock = clock.removesuffix("Z")
    return clock if clock and date == today else f"{date} {clock}".strip()


def day(time: str) -> str:
    """Return the date of an RFC 3339 time."""
    return time.partition("T")[0]


def count(number: int, noun: str) -> str:
    """Return ``1 route``, ``2 routes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
