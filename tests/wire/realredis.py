"""Random sessions with a real redis-server, read along with by a rewriter; and a judge of what came of them. I/O: TCP.

The judge pairs nothing. What has to change is told by what it says: real topology replies hold ids of the real nodes,
and the like, and the values that clients store here look like them in everything but this.

    python -m tests.wire.realredis 1000 2000      # sessions with these seeds, against servers of its own
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from natproxy.wire.book import Book, View
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Fallback
from tests.standins.caches import RealRedis, redis_program
from tests.standins.clusternode import ClusterNode
from tests.standins.rediscluster import RedisCluster
from tests.wire.talk import Notes, answer, array, bulk, command
from tests.wire.talk import ask as ask_whole

PORT = 6379
PUBLIC = "cache.example.com"
SECONDS = 20.0
TRIGGERS = {
    Fallback.MONITOR: (command("MONITOR"), b"monitor\r\n"),
    Fallback.REPLY_OFF: (command("CLIENT", "REPLY", "OFF"), command("client", "reply", "skip")),
    Fallback.REPLICATION: (command("REPLCONF", "ACK", "1"), command("replconf", "capa", "eof")),
    Fallback.REQUEST: (b"'ECHO' x\r\n", b"SUBSCRIBE 'a b'\r\n"),
    Fallback.ANSWER: (command("MULTI") + command("SUBSCRIBE", "a", "b") + command("EXEC"),),
}
"""What ends the reading, by the reason that is then given. What falls silent is left out: the end would not be seen."""
FORGED_SLOT, SAID_SLOT = 9, 10
"""Redirections to the first are hidden in values and tables, those to the second are errors that a script raises."""


@dataclass(frozen=True)
class Server:
    """Where sessions are held, and what is told of there."""

    address: str
    nodes: tuple[str, ...]
    """Addresses of all that are told of; each is known to the book."""
    ids: tuple[bytes, ...] = ()
    """Of the nodes of a cluster: only real topology replies name them."""

    def view(self) -> View:
        """The view of a connection to it."""
        ports = {(address, PORT): 7000 + number for number, address in enumerate(self.nodes)}
        return View(Book(ports, PUBLIC, "203.0.113.73", 1), "127.0.0.1", self.address, PORT, speaks_tls=False)


# What a client says.


@dataclass
class Talker:
    """Makes up a session. What it keeps track of is what it must not say."""

    dice: random.Random
    server: Server
    is_in_multi: bool = False
    has_subscribed: bool = False
    said: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = [self._plain, self._told_of, self._odd, self._transaction, self._listening, self._mode]
        self._kinds = [kind for kind in kinds for _ in range(self.dice.choice([1, 2, 5, 20]))]
        if self.dice.random() < 0.5:
            self.said.append(command("HELLO", "3"))

    def forged(self) -> bytes:
        """Return a value; most look like what is rewritten."""
        where = self.dice.choice(self.server.nodes).encode()
        slots = array(array(b":0\r\n", b":1\r\n", array(bulk(where), b":6379\r\n", bulk(b"f" * 40))))
        values = [
            b"",
            b"%d" % self.dice.randrange(1000),
            b"\r\n-MOVED %d %b:6379\r\n" % (FORGED_SLOT, where),
            slots,
            b"\r\n" + slots * self.dice.randrange(40),
            b"# Replication\r\nrole:slave\r\nmaster_host:%b\r\nmaster_port:6379\r\nrun_id:x\r\n" % where,
            b"%b %b:6379@16379 myself,master - 0 0 1 connected 0-16383\n" % (b"f" * 40, where),
            command("CLUSTER", "SLOTS"),
            command("MULTI") + command("SUBSCRIBE", "a"),
            b"\n" * self.dice.randrange(200),
            self.dice.randbytes(self.dice.choice([1, 97, 98, 99, 100, 101, 200])),
            b"x" * self.dice.choice([99, 100, 999, 5000, 16_384, 70_000]),
        ]
        return self.dice.choice(values)

    def key(self) -> str:
        return self.dice.choice(["{a}1", "{a}2", "{a}l", "{a}h", "{a}s", "{a}z", "{a}x", "b", "c", "gone", "other{q}"])

    def channel(self) -> str:
        return self.dice.choice(["a", "b", "p1", "p2", "c" * 120])

    def next(self) -> bytes:
        """Return one more command, or a few that belong together."""
        said = self.dice.choice(self._kinds)()
        self.said.append(said)
        return said

    def _words(self, *words: str | bytes) -> bytes:
        """Encode a command, in upper or lower case, seldom without lengths."""
        name = words[0] if self.dice.random() < 0.8 else words[0].lower()
        raw = [word if isinstance(word, bytes) else word.encode() for word in (name, *words[1:])]
        if self.dice.random() < 0.08 and all(re.fullmatch(rb"[\w.:*]{1,1000}", word) for word in raw):
            return self.dice.choice([b"", b" "]) + b"  ".join(raw) + self.dice.choice([b"\n", b"\r\n"])
        return command(*raw)

    def _plain(self) -> bytes:
        key, other, value, words = self.key(), "{a}" + self.key(), self.forged(), self._words
        dice = self.dice
        choices: list[Callable[[], bytes]] = [
            lambda: words("SET", key, value),
            lambda: words("GET", key) * dice.choice([1, 1, 1, 5, 40]),
            lambda: words("SET", "{a}1", value) + words("GET", "{a}1") * dice.randrange(1, 20),
            lambda: words("MSET", "{a}1", value, "{a}2", self.forged()),
            lambda: words("MGET", "{a}1", "{a}2", "{a}3", other),
            lambda: words("RPUSH", "{a}l", *[self.forged() for _ in range(dice.randrange(1, 12))]),
            lambda: words("LRANGE", "{a}l", "0", dice.choice(["-1", "5", "100"])),
            lambda: words("DEL", "{a}l", "{a}x"),
            lambda: words("HSET", "{a}h", "f", value, "master_host", self.forged()) + words("HGETALL", "{a}h"),
            lambda: words("SADD", "{a}s", value, "message", "x") + words("SMEMBERS", "{a}s"),
            lambda: words("ZADD", "{a}z", "1.5", value, "inf", "i") + words("ZRANGE", "{a}z", "0", "-1", "WITHSCORES"),
            lambda: words("XADD", "{a}x", "*", "field", value) + words("XRANGE", "{a}x", "-", "+"),
            lambda: words("XREAD", "COUNT", "3", "BLOCK", "1", "STREAMS", "{a}x", dice.choice(["0", "$"])),
            lambda: words("XINFO", "STREAM", "{a}x", "FULL"),
            lambda: words("RPUSH", "{a}m", "message", "a", "x", "subscribe") + words("LRANGE", "{a}m", "0", "3"),
            lambda: words("BLPOP", "{a}none", "0.001"),
            lambda: words("BLPOP", "{a}l", "0.001"),
            lambda: words("SETRANGE", "{a}1", "100000", "x") + words("GET", "{a}1"),
            lambda: words("GETRANGE", "{a}1", "0", str(dice.choice([97, 98, 99, 16_383, 65_000]))),
            lambda: words("INCR", "{a}1") + words("OBJECT", "ENCODING", key) + words("OBJECT", "HELP"),
            lambda: words("CONFIG", "GET", dice.choice(["*", "port", "nothing"])),
            lambda: words("COMMAND", dice.choice(["COUNT", "LIST"])) + words("COMMAND", "DOCS", "cluster", "get"),
            lambda: words("COMMAND", "INFO", "cluster|slots", "nope"),
            lambda: words("SCAN", "0", "COUNT", "100"),
            lambda: words("CLIENT", dice.choice(["ID", "INFO", "LIST", "GETNAME", "HELP"])),
            lambda: words("ACL", dice.choice(["WHOAMI", "LIST", "CAT"])),
            lambda: words("MEMORY", dice.choice(["STATS", "DOCTOR"])) + words("SLOWLOG", "GET", "2"),
            lambda: words("FUNCTION", "LIST") + words("SCRIPT", "EXISTS", "f" * 40) + words("WAIT", "0", "0"),
            lambda: words("PING") * dice.choice([1, 3, 50]) + words("ECHO", value),
            lambda: words("NOPE", value[:50]) + words("GET") + words("SELECT", "0") + words("DBSIZE"),
            lambda: words("AUTH", "wrong") + words("AUTH", "no", "such"),
            lambda: words("PUBLISH", self.channel(), value),
            lambda: words("SPUBLISH", "a", value),
        ]  # fmt: skip
        return dice.choice(choices)()

    def _told_of(self) -> bytes:
        words, dice = self._words, self.dice
        choices = [
            words("INFO", dice.choice(["replication", "all", "everything", "default", "server", "nothing"])),
            words("INFO", "server", "replication") + words("INFO"),
            words("ROLE"),
            words("CLUSTER", "SLOTS"),
            words("CLUSTER", "SHARDS"),
            words("CLUSTER", "NODES"),
            words("CLUSTER", "REPLICAS", dice.choice(self.server.ids or (b"x",))) + words("CLUSTER", "SLAVES", "none"),
            words("CLUSTER", dice.choice(["INFO", "MYID", "LINKS", "HELP", "NOPE", "SLOTS"]), *dice.choice(["", "x"])),
            words("CLUSTER"),
            words("cluster|slots") + words("ROLE", "x"),
            b"CLUSTER  SLOTS\r\n info replication\n",
        ]  # fmt: skip
        return dice.choice(choices)

    def _odd(self) -> bytes:
        words, dice = self._words, self.dice
        where = dice.choice(self.server.nodes)
        said, hidden = f"MOVED {SAID_SLOT} {where}:{PORT}", f"MOVED {FORGED_SLOT} {where}:{PORT}"
        scripts = [
            f"return redis.error_reply('{said}')",
            f"return redis.error_reply('ASK {SAID_SLOT} {where}:{PORT}')",
            f"return redis.status_reply('{hidden}')",
            f"return {{1, {{err='{hidden}'}}, {{ok='QUEUED'}}, {{}}, {{{{}}, 2}}}}",
            f"return {{'slave', '{where}', {PORT}, 'connected', -12345}}",
            f"return {{{{0, 1, {{'{where}', {PORT}, 'f'}}}}}}",
            "redis.setresp(3); return {map={a=1, b={double=1.5}}, set={x=true}}",
            "redis.setresp(3); return {set={x=true, y=true}}",
            "redis.setresp(3); return redis.call('HGETALL', '{a}h')",
            "return {double=1.5}",
            "redis.setresp(3); return {true, false, {double=2.5}, {verbatim_string={format='txt', string='x'}}}",
            "redis.setresp(3); return {big_number='1234567890123456789012345'}",
            "return redis.call('NOPE')",
            "error('x')",
            "return {'message', 'a', 'b'}",
            "return {'subscribe', 'a', 1}",
            "local t = {} for i = 1, 3000 do t[i] = {i, 'x', {}} end return t",
            "local t = 1 for i = 1, 50 do t = {t} end return t",
        ]  # fmt: skip
        if dice.random() < 0.7:
            return words("EVAL", dice.choice(scripts), "1", "{a}h")
        types = [
            "string",
            "integer",
            "double",
            "null",
            "array",
            "set",
            "map",
            "attrib",
            "push",
            "verbatim",
            "true",
            "bignum",
        ]
        return words("DEBUG", "PROTOCOL", dice.choice(types))

    def _transaction(self) -> bytes:
        words, dice = self._words, self.dice
        roll = dice.random()
        if roll < 0.2:
            self.is_in_multi = not self.is_in_multi
            return words("MULTI") if self.is_in_multi else words("EXEC")
        if roll < 0.3:
            self.is_in_multi = False
            return words(dice.choice(["EXEC", "DISCARD"]))
        if roll < 0.4:
            return words("WATCH", "{a}1") + words("UNWATCH")
        if roll < 0.5:
            self.is_in_multi = False
            return (
                words("WATCH", "{a}1")
                + words("SET", "{a}1", "w")
                + words("MULTI")
                + words("GET", "{a}1")
                + words("EXEC")
            )
        inside = b"".join(dice.choice([self._plain, self._told_of, self._odd])() for _ in range(dice.randrange(6)))
        extra = dice.choice([b"", words("MULTI"), words("WATCH", "x"), words("NOPE"), words("GET", "{a}1") * 30])
        self.is_in_multi = False
        return words("MULTI") + inside + extra + words(dice.choice(["EXEC", "EXEC", "EXEC", "EXEC", "DISCARD"]))

    def _listening(self) -> bytes:
        """Subscribe and the like: not in a transaction, where it ends the reading."""
        if self.is_in_multi:
            return self._words("PING")
        words, dice = self._words, self.dice
        self.has_subscribed = True
        names = [self.channel() for _ in range(dice.randrange(1, 4))]
        choices = [
            words("SUBSCRIBE", *names),
            words("PSUBSCRIBE", "p*", *names[1:]),
            words("SSUBSCRIBE", names[0]),
            words("UNSUBSCRIBE"),
            words("UNSUBSCRIBE", *names),
            words("PUNSUBSCRIBE"),
            words("PUNSUBSCRIBE", "p*"),
            words("SUNSUBSCRIBE"),
            words("SUNSUBSCRIBE", *names),
            words("SUBSCRIBE", *(f"many{number}" for number in range(dice.choice([3, 300])))),
            words("SUBSCRIBE") + words("PING") + words("PING", "x"),
            words("UNSUBSCRIBE") + words("PUNSUBSCRIBE") + words("SUNSUBSCRIBE"),
        ]
        return dice.choice(choices)

    def _mode(self) -> bytes:
        words, dice = self._words, self.dice
        with_options: list[tuple[str, ...]] = [(), (), ("SETNAME", "me"), ("AUTH", "default", "no")]
        choices = [
            *(words("HELLO", "3", *options) for options in with_options),
            # A client that has subscribed with RESP3 would be sent its messages as arrays from then on.
            words("HELLO", *([] if self.has_subscribed else ["2"])),
            words("HELLO", "4") + words("HELLO", "x"),
            words("RESET"),
            words("CLIENT", "TRACKING", "ON") + words("GET", "{a}1"),
            words("CLIENT", "TRACKING", "ON", "BCAST") + words("GET", "{a}1"),
            words("CLIENT", "TRACKING", "OFF"),
            b"\r\n\r\n*0\r\n*-1\r\n\n",
            words("READONLY") + words("ASKING") + words("READWRITE"),
        ]
        said = dice.choice(choices)
        if b"RESET" in said.upper():
            self.has_subscribed = self.is_in_multi = False
        return said


class Others:
    """Somebody else, who publishes what others listen to, and changes what they have read."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        self._dice = dice
        self._sock = socket.create_connection((server.address, PORT), SECONDS)
        self._where = server.nodes[0].encode()

    def act(self) -> None:
        channel = self._dice.choice(["a", "b", "p1", "p2"])
        body = b"\r\n-MOVED %d %b:6379\r\n" % (FORGED_SLOT, self._where) * self._dice.randrange(3)
        act = [command("PUBLISH", channel, body), command("SPUBLISH", "a", body), command("SET", "{a}1", "x")]
        self._sock.sendall(self._dice.choice(act))
        self._sock.recv(1 << 16)

    def close(self) -> None:
        self._sock.close()


# A rewriter in a leg's hands.


@dataclass
class Handed:
    """Feeds a rewriter as legs do: by pieces of any size, looking ahead, moving the inside of values unseen."""

    dice: random.Random
    rewriter: RedisRewriter
    came: bytearray = field(default_factory=bytearray)
    told: bytearray = field(default_factory=bytearray)

    def ask(self, data: bytes) -> None:
        rewriter = self.rewriter
        while data:
            if not rewriter.request_opaque and self.dice.random() < 0.3:
                rewriter.large_request(data[:256])
            if rewriter.request_opaque and self.dice.random() < 0.5:
                moved = min(self.dice.randrange(1, 1 << 17), rewriter.request_opaque, len(data))
                rewriter.request_opaque -= moved
            else:
                moved = self._piece(data)
                ask_whole(rewriter, data[:moved])
            data = data[moved:]

    def answer(self, data: bytes) -> None:
        rewriter = self.rewriter
        self.came += data
        while data:
            if not rewriter.reply_opaque and self.dice.random() < 0.3:
                rewriter.large_reply(data[:256])
            if rewriter.reply_opaque and self.dice.random() < 0.5:
                moved = min(self.dice.randrange(1, 1 << 17), rewriter.reply_opaque, len(data))
                rewriter.reply_opaque -= moved
                self.told += data[:moved]
            else:
                moved = self._piece(data)
                self.told += answer(rewriter, data[:moved])
            data = data[moved:]

    def _piece(self, data: bytes) -> int:
        size = self.dice.choice([1, 2, 3, 7, 30, 100, 1000, 16_384, 1 << 20])
        return min(len(data), self.dice.randrange(1, size + 1))


def hold(
    server: Server, seed: int, *, trigger: Fallback | None = None, parts: Sequence[bytes] = ()
) -> tuple[Handed, Notes]:
    """Hold a session, of ``parts`` or of what comes to its mind, and return what came of it.

    It ends with all topology asked for.
    """
    dice = random.Random(seed)
    notes = Notes()
    handed = Handed(dice, RedisRewriter(server.view, notes))
    talker = Talker(dice, server)
    others = Others(server, dice)
    nonce = b"nonce-%d-%d" % (seed, dice.getrandbits(60))
    said = list(parts) or [*talker.said, *(talker.next() for _ in range(dice.randrange(1, 40)))]
    if trigger is not None:
        said += [command("RESET"), dice.choice(TRIGGERS[trigger])]
        if trigger is not Fallback.REPLY_OFF:
            said += [talker.next() for _ in range(5)]
    probe = [command(*words) for words in (("ROLE",), ("INFO", "all"), ("CLUSTER", "SLOTS"), ("CLUSTER", "NODES"))]
    end = [command("RESET"), command("GET", "b"), *probe, command("ECHO", nonce)]
    if trigger is Fallback.REPLY_OFF:
        end = [command("RESET"), *end]  # the first may be answered by nothing
    sock = socket.create_connection((server.address, PORT), SECONDS)
    try:
        _converse(sock, b"".join(said), handed, others, dice)
        _converse(sock, b"".join(end), handed, others, dice, until=bulk(nonce))
    finally:
        sock.close()
        others.close()
    return handed, notes


def _converse(
    sock: socket.socket, asked: bytes, handed: Handed, others: Others, dice: random.Random, *, until: bytes = b""
) -> None:
    deadline = time.monotonic() + SECONDS
    waits = dice.random() < 0.5  # for replies, before it goes on
    while asked or (until and not handed.came.endswith(until)):
        if asked:
            size = dice.choice([1, 20, 200, 2000, 100_000])
            piece, asked = asked[:size], asked[size:]
            handed.ask(piece)
            view = memoryview(piece)
            while view:
                readable, writable, _ = select.select([sock], [sock], [], SECONDS)
                if readable:
                    handed.answer(sock.recv(1 << 18))
                if writable:
                    view = view[sock.send(view[: 1 << 14]) :]
        if dice.random() < 0.02:
            others.act()
        if select.select([sock], [], [], 0.0005 if asked and waits else 0 if asked else 0.05)[0]:
            data = sock.recv(dice.choice([1 << 10, 1 << 18]))
            assert data, f"the node has closed: {bytes(handed.came[-200:])!r}"
            handed.answer(data)
        assert time.monotonic() < deadline, f"no end: {bytes(handed.came[-200:])!r}"


# The judge.


@dataclass(frozen=True)
class Frame:
    """One value, read by the letter of the specification."""

    raw: bytes
    items: tuple[Frame, ...] = ()


def read_frame(data: bytes, at: int) -> tuple[Frame, int]:
    """Return the frame at ``at``, and where it ends."""
    stop = data.index(b"\r\n", at) + 2
    kind, number = data[at : at + 1], data[at + 1 : stop - 2]
    if kind in b"+-:_,#(" or number == b"-1":
        return Frame(data[at:stop]), stop
    if kind in b"$=!":
        end = stop + int(number) + 2
        assert len(data) >= end
        assert data[end - 2 : end] == b"\r\n"
        return Frame(data[at:end]), end
    assert kind in b"*~>%|", data[at : at + 50]
    items = []
    for _ in range(int(number) * (2 if kind in b"%|" else 1) + (kind == b"|")):
        item, stop = read_frame(data, stop)
        items.append(item)
    return Frame(data[at:stop], tuple(items)), stop


def read_frames(data: bytes) -> list[Frame]:
    """Return all frames."""
    found, at = [], 0
    while at < len(data):
        frame, at = read_frame(data, at)
        found.append(frame)
    return found


class Judge:
    """Compares what came with what was told."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._private = re.compile(b"|".join(re.escape(address.encode()) for address in server.nodes))
        self._moved = re.compile(rb"-(?:MOVED|ASK) (?!%d )\d+ \S+:\d+\r\n" % FORGED_SLOT)
        self.changed = 0

    def compare(self, came: bytes, told: bytes) -> None:
        """All that has to change has, and nothing else."""
        one, other = read_frames(came), read_frames(told)
        assert len(one) == len(other)
        for was, became in zip(one, other, strict=True):
            if was.raw[:1] == b"*" and was.items and not self._is_topology(was):
                assert was.raw[: was.raw.index(b"\n")] == became.raw[: became.raw.index(b"\n")]
                is_executed = any(map(self._is_topology, was.items))
                for element, told_as in zip(was.items, became.items, strict=True):
                    if is_executed or element.raw == told_as.raw or not self._moved.match(element.raw):
                        self._compare_one(element, told_as)
                    else:
                        self._check_changed(element.raw, told_as.raw)
            else:
                self._compare_one(was, became)

    def _compare_one(self, was: Frame, became: Frame) -> None:
        if self._moved.match(was.raw) or self._is_topology(was):
            self._check_changed(was.raw, became.raw)
        else:
            assert was.raw == became.raw, f"{was.raw[:300]!r} became {became.raw[:300]!r}"

    def _check_changed(self, was: bytes, became: bytes) -> None:
        self.changed += 1
        assert was != became, was[:300]
        assert PUBLIC.encode() in became
        assert not self._private.search(became), became

    def _is_topology(self, frame: Frame) -> bool:
        """Say whether a real topology reply names an address."""
        raw = frame.raw
        if raw[:1] in b"$=":
            is_role_told = b"role:slave" in raw or b"slave0:ip=" in raw
            is_node = any(raw.partition(b"\n")[2].removeprefix(b"txt:").startswith(mark) for mark in self._server.ids)
            is_info = b"# Replication" in raw and b"master_replid:" in raw
            return (is_info and is_role_told) or (is_node and raw.count(b" ") > 6)
        if not frame.items or raw[:1] != b"*":
            return False
        first = frame.items[0]
        if raw.startswith((b"*3\r\n$6\r\nmaster\r\n:", b"*5\r\n$5\r\nslave\r\n$")):
            return bool(self._private.search(raw)) and b":-12345\r\n" not in raw
        is_range = len(first.items) > 2 and first.items[0].raw[:1] == b":" and len(first.items[2].items) > 2
        if is_range or (first.items and first.items[0].raw == bulk(b"slots")):
            return any(mark in first.raw for mark in self._server.ids)
        return all(self._is_topology(item) and item.raw[:1] == b"$" and b"# R" not in item.raw for item in frame.items)


def judged(server: Server, seed: int, trigger: Fallback | None = None, parts: Sequence[bytes] = ()) -> int:
    """Hold a session and judge it; return how many replies were changed."""
    handed, notes = hold(server, seed, trigger=trigger, parts=parts)
    judge = Judge(server)
    came, told = bytes(handed.came), bytes(handed.told)
    if trigger is None:
        assert notes.fallbacks == []
        assert not handed.rewriter.ahead
        judge.compare(came, told)
    else:
        assert notes.fallbacks == [trigger]
        # What comes after passes as it is; the last replies are among it.
        tail = came[came.rindex(b"+RESET\r\n") :]
        assert told.endswith(tail)
        assert Judge(server)._private.search(tail)
    return judge.changed


# Servers.


@contextlib.contextmanager
def servers(net: str = "127.3.9") -> Iterator[list[Server]]:
    """Yield a primary and its replica, and two nodes of a cluster that shows MOVED and ASK."""
    program = redis_program()
    assert program is not None
    with contextlib.ExitStack() as stack:
        alone = [f"{net}.1", f"{net}.2"]
        primary, replica = (stack.enter_context(RealRedis(program, address, PORT)) for address in alone)
        replica.follow(primary)
        primary.wait_for_replicas(1)
        nodes = [stack.enter_context(ClusterNode(f"{net}.{number}", PORT)) for number in (3, 4, 5)]
        cluster = RedisCluster()
        cluster.follow([[nodes[0], nodes[2]], [nodes[1]]])
        slot = int(str(nodes[0].ask("CLUSTER", "KEYSLOT", "b")))
        owner = cluster.primary_of(slot)
        cluster.open_slots([slot], nodes[1] if owner is nodes[0] else nodes[0])
        ids = tuple(node.id.encode() for node in nodes)
        clustered = tuple(node.address for node in nodes)
        yield [
            *(Server(address, tuple(alone)) for address in alone),
            *(Server(node.address, clustered, ids) for node in nodes),
        ]


def main(words: Sequence[str]) -> None:
    """Hold many sessions."""
    first, last = int(words[0]), int(words[1])
    changed = sessions = 0
    with servers("127.3.10") as found:
        for seed in range(first, last):
            trigger = random.Random(seed).choice([None] * 9 + list(TRIGGERS))
            server = found[seed % len(found)]
            try:
                changed += judged(server, seed, trigger)
            except AssertionError:
                print(f"seed {seed}, {server.address}, {trigger}")
                raise
            sessions += 1
    print(f"{sessions} sessions, {changed} replies changed")


if __name__ == "__main__":
    main(sys.argv[1:])
