"""The bench's command line: measures parts, writes their results down, shows and draws them. I/O: all of it.

python -m bench                      every part; make bench
python -m bench --quick              the main rows alone; make bench-quick
python -m bench relay tls            these parts
python -m bench plot                 the plots anew, from what was measured; they lie beside the JSON
python -m bench write                performance.md beside the JSON: its tables anew
python -m bench soak                 minutes of everything at once on a real cluster: does natproxy hold?
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import document, interpreter, machine, plots, programs, tables
from bench.parts import connections, discovery, guide, laptop, memory, relay, rewrite, routes, tls, values, workers
from bench.parts.how import CannotError, Found, How
from bench.results import Part, Results, decode, encode
from bench.rounds import FULL, QUICK, Pace, tell
from bench.soak import run as soaking
from bench.soak import verdict

ROOT = Path(__file__).parents[1]
FILES = {False: ROOT / "bench" / "results" / "latest.json", True: ROOT / "bench" / "results" / "quick.json"}
PLOTTER = ROOT / ".venv" / "plots" / "bin" / "python"
DOCUMENT = "performance.md"
PARTS: dict[str, Callable[[How], Found]] = {
    "relay": relay.measure,
    "tls": tls.measure,
    "rewrite": rewrite.measure,
    "memory": memory.measure,
    "workers": workers.measure,
    "discovery": discovery.measure,
    "guide": guide.measure,
    "laptop": laptop.measure,
    "routes": routes.measure,
    "connections": connections.measure,
    "values": values.measure,
    "compiled": relay.measure_compiled,
}
ALL = tuple(name for name in PARTS if name != "compiled")
"""The relay in C is measured with the relay."""
IN_QUICK = ("relay", "tls", "rewrite", "memory")
SOAK = "soak"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    options = _parser().parse_args(arguments)
    words = options.words or ([*IN_QUICK] if options.quick else [*ALL, "plot"])
    path: Path = options.json or FILES[options.quick]
    known = [*PARTS, *ACTIONS, SOAK]
    if unknown := [word for word in words if word not in known]:
        return _refuse(f"no part is called {', '.join(unknown)}; there are {', '.join(known)}")
    if SOAK in words:
        return soak(options.minutes) if words == [SOAK] else _refuse(f"{SOAK} stands alone")
    names = [word for word in words if word in PARTS]
    try:
        failed = measure_all(names, path, options) if names else False
        for word in words:
            if word in ACTIONS:
                ACTIONS[word](path)
    except (OSError, RuntimeError, ValueError) as error:
        return _refuse(str(error), 1)
    return int(failed)


def soak(minutes: float) -> int:
    """Run the soak, show what came of it; return the exit status."""
    programs.prepare()
    try:
        lines = soaking.soak(soaking.Course(minutes * 60))
    except (CannotError, OSError, RuntimeError, ValueError) as error:
        return _refuse(str(error), 1)
    print(verdict.table(lines))
    return int(not all(line.is_good for line in lines))


def _refuse(why: str, status: int = 2) -> int:
    print(f"python -m bench: {why}", file=sys.stderr)
    return status


def measure_all(names: Sequence[str], path: Path, options: argparse.Namespace) -> bool:
    """Measure parts, show them, and keep their results beside those of older ones; return whether one failed."""
    programs.prepare()
    python = interpreter.provide(options.python)
    usual = QUICK if options.quick else FULL
    how = How(Pace(options.rounds or usual.rounds, options.seconds or usual.seconds), options.quick, (python,))
    more = ["--quick"] if options.quick else []
    for option in ("rounds", "seconds", "python"):
        if value := getattr(options, option):
            more += [f"--{option}", str(value)]
    described = machine.describe(how.python)
    started = time.monotonic()
    parts: dict[str, Part] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        parts[name] = measure(name, how, " ".join(["python -m bench", name, *more]), described)
        path.write_bytes(encode(Results({**read(path).parts, name: parts[name]})))
    tell(f"{time.monotonic() - started:.0f} s in all; {path}\n")
    print(tables.report(parts))
    return any(part.has_failed for part in parts.values())


def measure(name: str, how: How, command: str, described: dict[str, str]) -> Part:
    """Measure a part. What fails is told in its place: it shall not cost the others."""
    tell(f"{name} ...")
    started = time.monotonic()
    has_failed = False
    try:
        found = PARTS[name](how)
    except CannotError as error:
        found = Found(left_out={name: str(error)})
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        traceback.print_exc()
        found, has_failed = Found(left_out={name: f"failed: {error}"}), True
    seconds = time.monotonic() - started
    tell(f"{name}: {seconds:.0f} s")
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return Part(command, date, seconds, described, found.rows, found.curves, found.left_out, has_failed)


def read(path: Path) -> Results:
    """Return what an earlier run left there; nothing where it cannot be read."""
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return Results({})
    except ValueError as error:
        tell(f"{path}: {error}; it is written anew")
        return Results({})


def plot(path: Path) -> None:
    """Draw all curves, beside the results."""
    drawn = plots.figures(decode(path.read_bytes()).parts)
    if not drawn:
        tell("there are no curves to draw")
        return
    if not PLOTTER.exists():
        tell("no plots are drawn: matplotlib is not installed (make plots)")
        return
    argv = [str(PLOTTER), "-I", str(ROOT / "bench" / "draw.py"), str(path.parent)]
    done = subprocess.run(argv, input=json.dumps(drawn), check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the plots could not be drawn: {done.stderr[-1000:]}")
    tell(done.stdout.rstrip())


def write(path: Path) -> None:
    """Fill the document that lies beside the results."""
    target = path.parent / DOCUMENT
    parts = decode(path.read_bytes()).parts
    target.write_text(document.fill(target.read_text(encoding="utf-8"), parts), encoding="utf-8")
    tell(str(target))


ACTIONS: dict[str, Callable[[Path], None]] = {"plot": plot, "write": write}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = f"of {', '.join([*PARTS, *ACTIONS])}; none: all but compiled, and plot; or {SOAK}, alone"
    parser.add_argument("words", nargs="*", metavar="PART", help=words)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, and the main rows only")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many, after the first that is dropped")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each proxy's turn in a round takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results are kept, those of other parts too")
    parser.add_argument(
        "--minutes", type=float, metavar="M", default=3.0, help="how long the soak takes, after its start"
    )
    parser.add_argument("--python", default="", metavar="PATH", help="the interpreter that runs natproxy")
    return parser
