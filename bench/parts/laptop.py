"""The laptop's side: clients in the clear to ``natproxy connect``, and such that speak TLS themselves. I/O: runs it.

Behind both is the same port of the same natproxy, which demands a certificate. natproxy and the node have one core, the
client and ``natproxy connect`` the other: what the laptop does is done by one core. Somebody has to speak TLS there, so
the cost is that of all together: client, ``natproxy connect``, natproxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.accounts import Account
from bench.certificates import Files
from bench.daemon import Daemon
from bench.loads import requests, timed
from bench.parts import whole
from bench.parts.how import Found, How
from bench.parts.nodes import directory, redis_server
from bench.peers import natproxy
from bench.peers.ports import Door, Open, Setting, port_of
from bench.programs import PEER_CORE, PROXY_CORE, running
from bench.results import NATPROXY, OWN_TLS, Reading, Row
from bench.rounds import Done, Load, tell

ROOT = Path(__file__).parents[2]
HOST = "127.0.2.1"
"""natproxy's: on 127.0.0.1 the same port is that of ``natproxy connect``."""
PORTAL_PORT = 20997
DOOR = Door("laptop", client_tls=True, demands_certificate=True)
CORE = PEER_CORE
GET, SET = ("get",), ("set",)
C50, C16, C8, PIPELINE, ANEW = ("-c", "50"), ("-c", "16"), ("-c", "8"), ("-P", "16"), ("-k", "0")


LONGER = 4
"""Rounds are so much longer than others: each begins with a handshake for each of its connections."""


@dataclass(frozen=True)
class Pair:
    """One row: what is asked by a clear client, and by one that speaks TLS."""

    name: str
    clear: Load
    tls: Load
    first: int
    """How much the warm-up does."""
    is_main: bool = False


def pairs(files: Files) -> tuple[Pair, ...]:
    """Return the rows."""
    shown = (str(files.ca), str(files.member), str(files.member_key))
    return (
        Pair("laptop: GET and SET, 1 client", timed(1, core=CORE), timed(1, core=CORE, tls=shown), 1_000, is_main=True),
        _pair("laptop: GET, 50 clients", files, GET, *C50, first=4_000, is_main=True),
        _pair("laptop: SET, 50 clients", files, SET, *C50, first=4_000, is_main=True),
        _pair("laptop: GET, 50 clients, pipeline 16", files, GET, *C50, *PIPELINE, first=30_000),
        _pair("laptop: GET 64 KiB, 16 clients", files, GET, *C16, first=1_000, value_bytes=65536),
        _pair("laptop: a new connection for each GET", files, GET, *C8, *ANEW, first=200),
    )


def _pair(
    name: str,
    files: Files,
    tests: Sequence[str],
    *options: str,
    first: int,
    value_bytes: int = 3,
    is_main: bool = False,
) -> Pair:
    clear = requests(tests, *options, core=CORE, value_bytes=value_bytes)
    tls = requests(tests, *options, *files.client_options(is_member=True), core=CORE, value_bytes=value_bytes)
    return Pair(name, clear, tls, first, is_main)


def measure(how: How) -> Found:
    """Measure every row both ways; where it has to be quick, the main ones."""
    found = Found()
    with directory() as place:
        files = Files.make(place, ips=[HOST])
        setting = Setting(place, files, address=HOST, python=how.python)
        with redis_server(core=PROXY_CORE), _opened(setting) as (ways, connect):
            for pair in pairs(files):
                if pair.is_main or not how.is_quick:
                    tell(f"  {pair.name}")
                    found.rows.append(_row(pair, ways, connect, how))
    return found


class Watched:
    """A load, and what ``natproxy connect`` used for it."""

    def __init__(self, load: Load, connect: Account) -> None:
        self._load = load
        self._connect = connect
        self._seconds, self._count = 0.0, 0.0

    def __call__(self, door: Open, amount: int) -> Done:
        """Do it."""
        before = sum(self._connect.cpu_seconds().values())
        done = self._load(door, amount)
        self._seconds += sum(self._connect.cpu_seconds().values()) - before
        self._count += done.count
        return done

    @property
    def cost(self) -> float:
        """Microseconds of CPU for each."""
        return self._seconds / self._count * 1e6


def _row(pair: Pair, ways: dict[str, Open], connect: Account, how: How) -> Row:
    watched = Watched(pair.clear, connect)
    loads: dict[str, tuple[Load, int]] = {NATPROXY: (watched, pair.first), OWN_TLS: (pair.tls, pair.first)}
    readings = whole.measure(loads, ways, replace(how.pace, seconds=LONGER * how.pace.seconds))
    notes = (f"natproxy connect's own part is {watched.cost:.1f} us; {waits(readings)}",)
    return Row(pair.name, "us", readings, notes=notes, against=OWN_TLS)


def waits(readings: Mapping[str, Sequence[Reading]]) -> str:
    """Say how long requests take that go through it, and how long those that do not."""
    said = []
    for name in ("p50", "p99"):
        ours, theirs = (
            statistics.median(getattr(reading, name) for reading in readings[who]) for who in (NATPROXY, OWN_TLS)
        )
        said.append(f"{name} {ours:.3g} ms instead of {theirs:.3g} ms")
    return ", ".join(said)


# the two ways


def config(setting: Setting) -> str:
    """Return natproxy's config, with a portal."""
    written: dict[str, object] = json.loads(natproxy.config((DOOR,), setting, demands_certificate=True))
    return json.dumps({**written, "public_host": HOST, "portal": {"port": PORTAL_PORT}})


def bundle(files: Files) -> Path:
    """Write what ``natproxy pki issue`` would; return its directory."""
    place = files.directory / "bundle"
    place.mkdir(mode=0o700)
    for name, file in {"ca.crt": files.ca, "client.crt": files.member, "client.key": files.member_key}.items():
        shutil.copy(file, place / name)
    manifest = {"version": 1, "name": "dev1", "host": HOST, "portal_port": PORTAL_PORT}
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return place


@contextlib.contextmanager
def _opened(setting: Setting) -> Iterator[tuple[dict[str, Open], Account]]:
    """Run natproxy and ``natproxy connect``; yield both ways, and whose work the latter's is."""
    if setting.files is None:
        raise ValueError("there is no laptop's side without TLS")
    port = port_of(natproxy.NAME, setting, DOOR)
    python = list(setting.python or [sys.executable])
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [
        "env",
        f"PYTHONPATH={path}",
        *python,
        "-m",
        "natproxy",
        "connect",
        "--bundle",
        str(bundle(setting.files)),
    ]
    with (
        Daemon(config(setting), {}, pin=setting.core, python=setting.python) as daemon,
        running(CORE, *command, port=port) as connect,
    ):
        pids = tuple(daemon.pids())
        ways = {NATPROXY: Open(port, Account((*pids, connect))), OWN_TLS: Open(port, Account(pids), HOST)}
        yield ways, Account((connect,))
