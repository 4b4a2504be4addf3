"""The command behind ``make demo``. I/O: talks to the terminal.

Exit status: 0 all was followed (or, once the story is told, Ctrl-C), 1 something was not, 2 it cannot be shown here,
128 + the signal's number where a signal ended the story.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys

NO_LIBRARIES = "it needs natproxy's virtual environment: `make demo` makes it, and starts it in there"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the story instead of leaving it running")
    is_once = parser.parse_args().once
    try:
        return show(is_once=is_once)
    except ModuleNotFoundError as error:
        return give_up(f"{error.name} is not installed; {NO_LIBRARIES}")


def show(*, is_once: bool) -> int:
    from rich.console import Console

    from tests.demo.stage import Signals, Stage, StageError, StopAskedError
    from tests.demo.story import Story
    from tests.standins.caches import CacheError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without these characters shows others
    console = Console(highlight=False)
    signals = Signals()
    is_told = False
    try:
        with Stage(signals) as stage:
            story = Story(stage, console)
            is_good = story.tell()
            if is_once:
                return 0 if is_good else 1
            is_told = is_good
            story.stay()
        return 1
    except StopAskedError as asked:
        console.print(f"{signal.strsignal(asked.number)}: everything is stopped, and nothing is left behind.")
        return 0 if is_told else 128 + asked.number
    except (StageError, CacheError) as error:
        return give_up(str(error))


def give_up(problem: str) -> int:
    print(f"The demonstration cannot be shown here: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
