"""What every machine begins with: a Debian root and the wheels of natproxy's requirements, made once and then kept.

I/O: talks to apt, debootstrap and pip, and keeps what they make under the user's cache directory.

A machine has no way out of its network, so all that it needs is in here. The Debian mirror is the one that this host's
own apt uses. What is kept is never changed: another list of packages or another lock file has another name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"

RELEASE_VARIABLE = "NATPROXY_TEST_RELEASE"
"""Names another Debian release than this host's: ``trixie``."""
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iptables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "python3-venv",
    "sudo",
    "systemd",
    "systemd-sysv",
)
"""About what Debian's own image for EC2 has of what matters here, and what the role would install from a mirror."""
ADMIN = "admin"
"""The user whom Debian's image for EC2 has: may do everything with sudo."""

MAKING_SECONDS = 900.0
_MAKING = "making-"


def cache_directory() -> Path:
    """Return where things are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "natproxy-tests"


def release() -> str:
    """Return the Debian release that machines run: this host's, unless RELEASE_VARIABLE says otherwise."""
    return os.environ.get(RELEASE_VARIABLE) or platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def mirror() -> str | None:
    """Return the address of the Debian mirror that this host's apt uses, or None where it uses none."""
    words = "$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)"
    argv = ["apt-get", "indextargets", "--format", words, "Created-By: Packages"]
    try:
        listed = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for line in listed.splitlines():
        origin, component, suite, uri = line.split("|", 3)
        if (origin, component, suite) == ("Debian", "main", own):
            return uri
    return None


def debian_root() -> Path:
    """Return the directory of a Debian root which is booted read-only; make it where there is none yet (a minute)."""
    recipe = _digest(*PACKAGES, inspect.getsource(_make_root))
    return kept(f"debian-{release()}-{platform.machine()}-{recipe}", _make_root) / "root"


def wheelhouse(debian: Path) -> Path:
    """Return a directory with a wheel for each line of requirements.lock, for the Python of a Debian root."""
    python = (debian / "usr/bin/python3").readlink().name.removeprefix("python")

    def download(to: Path) -> None:
        # The lock file's markers are about platforms which are none of ours: this Python reads it as that one would.
        words = ("--require-hashes", "--only-binary", ":all:", "--python-version", python, "--no-deps")
        run(sys.executable, "-m", "pip", "download", "-q", *words, "-r", str(LOCK), "-d", str(to))

    return kept(f"wheels-python{python}-{platform.machine()}-{_digest(LOCK.read_text(encoding='utf-8'))}", download)


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the kept directory of that name; where there is none, ``make`` fills a new one, which is then renamed.

    One run makes at a time, the others wait for it. What a run that died had begun is removed.
    """
    place = cache_directory() / name
    if place.is_dir():
        return place
    with _alone(cache_directory()):
        if not place.is_dir():
            for begun in cache_directory().glob(f"{_MAKING}*"):
                shutil.rmtree(begun)
            with tempfile.TemporaryDirectory(prefix=_MAKING, dir=cache_directory()) as begun_now:
                made = Path(begun_now, name)
                made.mkdir()
                make(made)
                made.rename(place)
    return place


def run(*argv: str) -> None:
    """Run a program to its end; RuntimeError with the last of its words where it fails.

    What it mounts goes with it, even if it is killed.
    """
    private = ("unshare", "--mount", "--fork", "--kill-child")
    done = subprocess.run(
        [*private, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAKING_SECONDS, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def _make_root(to: Path) -> None:
    root = to / "root"
    source = mirror()
    if source is None:
        raise RuntimeError("this host's apt knows no Debian mirror")
    run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release(), str(root), source)
    _in_root(root, "useradd", "--create-home", "--shell", "/bin/bash", ADMIN)
    sudoers = root / "etc/sudoers.d" / ADMIN
    sudoers.write_text(f"{ADMIN} ALL=(ALL) NOPASSWD: ALL\n", encoding="ascii")
    sudoers.chmod(0o440)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    # debootstrap copies these from the host; a machine gets its own.
    for copied in ("etc/hostname", "etc/resolv.conf"):
        (root / copied).unlink(missing_ok=True)


def _in_root(root: Path, *argv: str) -> None:
    run("chroot", str(root), *argv)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def missing(programs: Sequence[str]) -> list[str]:
    """Return those of the programs that are not installed."""
    return [program for program in programs if shutil.which(program) is None]
