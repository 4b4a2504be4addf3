"""What all commands share: how they are set up, print, and exit. I/O: talks to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

DONE, BAD_ANSWER, USAGE, UNREACHABLE = range(4)
"""Exit codes: done; it ran and the answer is bad; usage or config; the daemon or AWS could not be reached."""

SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""What every ``typer.Typer`` here is made with."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def complain(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)


def count(number: int, one: str, many: str) -> str:
    """Return the number with its noun: ``1 route``, ``2 routes``."""
    return f"{number} {one if number == 1 else many}"


def show(renderable: RenderableType) -> None:
    """Print one of Rich's renderables; its lines may be as long as they like."""
    from rich.console import Console  # noqa: PLC0415

    Console(highlight=False).print(renderable, soft_wrap=True)


def show_table(wide: Table, narrow: Table) -> None:
    """Print ``wide`` where it fits, or where lines may be as long as they like; else ``narrow``."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    needed = console.measure(wide, options=console.options.update(width=10_000)).maximum
    if needed > console.width and (console.is_terminal or "COLUMNS" in os.environ):
        console.print(narrow)
        return
    console.width = max(needed, console.width)
    console.print(wide)


def give_up(error: Exception) -> NoReturn:
    """Exit after an error that nobody foresaw, or output that cannot be written."""
    if os.environ.get("NATPROXY_TRACEBACK"):
        raise error
    if isinstance(error, OSError):
        if not isinstance(error, BrokenPipeError):
            complain(f"natproxy: {error}")
    else:
        complain(f"natproxy: unexpected {type(error).__name__}: {error}; with NATPROXY_TRACEBACK=1 it tells where")
    with contextlib.suppress(OSError):  # what could not be written is not tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(BAD_ANSWER)
