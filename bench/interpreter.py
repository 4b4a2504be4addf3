"""Another Python to run natproxy with: with what natproxy needs installed for it. I/O: makes virtual environments.

An operator's Python is often not the one this repository was set up with (Debian's, for one, is built with
profile-guided optimisation), and speed differs between them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.rounds import tell

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
DIRECTORY = ROOT / ".venv" / "bench"
NEEDED = (
    "import aiodns, aiohttp, boto3, cryptography, jinja2, msgspec, "
    "prometheus_client, pydantic, rich, typer, uvloop, yaml"
)


def provide(path: str) -> str:
    """Return an interpreter of that kind which can run natproxy. Raises RuntimeError where there is none to be had."""
    if not path:
        return sys.executable
    if _can(path):
        return path
    version = _run([path, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
    place = DIRECTORY / f"{Path(path).resolve().name}-{version.strip()}"
    python = place / "bin" / "python"
    if not (python.exists() and _can(str(python))):
        tell(f"making {place.relative_to(ROOT)} for {path}")
        _run([path, "-m", "venv", "--clear", str(place)])
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes"]
        _run([*pip, "-r", str(LOCK)])
    return str(python)


def _can(path: str) -> bool:
    try:
        return subprocess.run([path, "-c", NEEDED], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
    return done.stdout
