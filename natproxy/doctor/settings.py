"""The kernel's settings, read and never written. I/O: reads /proc/sys."""

from __future__ import annotations

from pathlib import Path

SYSTEM = Path("/proc/sys")


def read_text(name: str, system: Path = SYSTEM) -> str | None:
    """Return a setting by its sysctl name (``net.core.somaxconn``); None where there is none, or it may not be read."""
    try:
        return (system / name.replace(".", "/")).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_number(name: str, system: Path = SYSTEM) -> int | None:
    """Return a setting that is one number; None where it is not."""
    text = read_text(name, system)
    return int(text) if text is not None and text.isdecimal() else None


def read_spans(name: str, system: Path = SYSTEM) -> tuple[tuple[int, int], ...]:
    """Return a setting that is a list of ports (``6379-6388,9479``); empty where there is none."""
    text = read_text(name, system) or ""
    spans = (part.partition("-") for part in text.replace("\t", "-").replace(" ", "").split(",") if part)
    return tuple((int(first), int(last or first)) for first, _, last in spans)


def mend(name: str, value: object) -> str:
    """Return the commands that set it for now and for ever."""
    line = f"{name} = {value}"
    return f"echo '{line}' | sudo tee -a /etc/sysctl.d/90-natproxy.conf && sudo sysctl --system"
