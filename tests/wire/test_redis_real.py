"""Sessions with real servers, alone and as a cluster: what came, and what was told of it, differ in addresses only."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

import pytest

from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Fallback
from tests.standins.caches import redis_program
from tests.wire.realredis import PORT, SECONDS, TRIGGERS, Frame, Handed, Judge, Server, judged, read_frames, servers
from tests.wire.talk import SLOTS, Notes, array, bulk, command

pytestmark = pytest.mark.skipif(redis_program() is None, reason="redis-server is not installed")

SESSIONS = 12
"""For each server; run the module beside this one for thousands."""


@pytest.fixture(scope="module")
def found() -> Iterator[list[Server]]:
    with servers() as running:
        yield running


@pytest.mark.parametrize("number", range(5), ids=["primary", "replica", "node 1", "node 2", "a node's replica"])
def test_whatever_a_client_says_only_addresses_change(found: list[Server], number: int) -> None:
    changed = sum(judged(found[number], seed) for seed in range(SESSIONS))
    assert changed >= SESSIONS


@pytest.mark.parametrize("reason", TRIGGERS)
@pytest.mark.parametrize("number", [0, 2])
def test_what_cannot_be_read_on_passes_as_it_is(found: list[Server], number: int, reason: Fallback) -> None:
    for seed in range(3):
        judged(found[number], seed, reason)


LINES = [
    b"PING\n",
    b" \t PING \r\n",
    b"PING\x0b\n",
    b"\x0bPING\n",
    b"MULTI\x0bx\n",
    b"PING\rMULTI\n",
    b"INFO\rserver\n",
    b"\t\n \r\n\n\r\n",
    b"ECHO a\\b\n",
    b'ECHO "a b" \n',
    b"SET a 'x\\'y'\r\n",
    b"SUBSCRIBE a b\nUNSUBSCRIBE\n",
    b"cluster\tslots\n",
    b"*0\r\n*-1\r\n*0\r\n",
    b"$3\r\nSET\r\n",
    b"\n\r*1\r\n",
    b"cluster|slots\n",
    b"DISCARD\nEXEC\nMULTI x\n",
    b"ECHO " + b"x" * 60_000 + b"\n",
    b"\xff\xfe\n",
]
"""What real servers make of lines is not all in their documentation."""


def test_lines_are_read_as_servers_read_them(found: list[Server]) -> None:
    for number, server in enumerate(found[:3]):
        for line in LINES:
            judged(server, number, parts=[line])
        judged(server, number, parts=LINES * 3)


def test_a_command_of_more_than_a_million_words(found: list[Server]) -> None:
    """Servers before 7.0 took no more."""
    judged(found[0], 1, parts=[command("DEL", *[b"gone"] * ((1 << 20) + 5)), command("MSET", *[b"k", b"\r\n"] * 5000)])


@pytest.mark.parametrize(
    ("last", "reasons"),
    [
        (command("QUIT") + command("PING"), []),
        (b"quit\r\nCLUSTER SLOTS\r\n", []),
        (b"*x\r\n", [Fallback.REQUEST]),
        (b"*1\r\n$-7\r\n", [Fallback.REQUEST]),
        (b"PING 'x\r\n", []),
        (b"POST / HTTP/1.1\r\nHost: x\r\n", []),
    ],
)
def test_what_comes_before_the_server_hangs_up(found: list[Server], last: bytes, reasons: list[Fallback]) -> None:
    for server in found[1:3]:
        notes = Notes()
        handed = Handed(random.Random(1), RedisRewriter(server.view, notes))
        with socket.create_connection((server.address, PORT), SECONDS) as sock:
            for asked in (command("ROLE") + command("CLUSTER", "SLOTS") + command("GET", "b"), last):
                handed.ask(asked)
                sock.sendall(asked)
                handed.answer(sock.recv(1 << 18))
            with contextlib.suppress(ConnectionResetError):
                while came := sock.recv(1 << 18):
                    handed.answer(came)
        judge = Judge(server)
        judge.compare(bytes(handed.came), bytes(handed.told) + handed.rewriter.rest())
        assert judge.changed >= 1
        assert notes.fallbacks == reasons


# The judge itself.

ALONE = Server("10.0.1.230", ("10.0.1.230", "10.0.1.231"), (b"a" * 40,))
SAID = bulk(b"10.0.1.230:6379") + b"+OK\r\n"


@pytest.mark.parametrize(
    ("came", "told"),
    [
        (SAID, SAID.replace(b"230", b"231")),
        (SAID, SAID[:-5]),
        (SAID, SAID + b"+OK\r\n"),
        (SLOTS, SLOTS),
        (SLOTS, SLOTS.replace(b"10.0.1.230", b"10.0.1.231")),
        (array(SLOTS, SAID[:-5]), array(SLOTS, SAID[:-5])),
        (b"-MOVED 5 10.0.1.230:6379\r\n", b"-MOVED 5 10.0.1.230:6379\r\n"),
        (b"-MOVED 9 10.0.1.230:6379\r\n", b"-MOVED 9 cache.example.com:7000\r\n"),
        (array(b":1\r\n", b"+x\r\n"), array(b":1\r\n", b"+y\r\n")),
    ],
)
def test_the_judge_finds_what_is_wrong(came: bytes, told: bytes) -> None:
    with pytest.raises(AssertionError):
        Judge(ALONE).compare(came, told)


def test_the_judge_lets_pass_what_is_right() -> None:
    slots = SLOTS.replace(b"$10\r\n10.0.1.230", b"$17\r\ncache.example.com").replace(b"6379", b"7000")
    judge = Judge(ALONE)
    judge.compare(SAID + array(SLOTS, SAID[:-5]), SAID + array(slots, SAID[:-5]))
    judge.compare(b"-MOVED 5 10.0.1.230:6379\r\n" + SLOTS, b"-MOVED 5 cache.example.com:7000\r\n" + slots)
    assert judge.changed == 3


def test_frames_are_read_by_the_letter() -> None:
    data = array(b":1\r\n", b"|1\r\n+a\r\n+b\r\n#t\r\n", b"%1\r\n+k\r\n*-1\r\n") + b"=5\r\ntxt:x\r\n"
    one, other = read_frames(data)
    assert [item.raw[:1] for item in one.items] == [b":", b"|", b"%"]
    assert [len(item.items) for item in one.items] == [0, 3, 2]
    assert other == Frame(b"=5\r\ntxt:x\r\n")
