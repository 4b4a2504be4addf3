"""Whatever is said over a port that rewrites: what comes back is what the node says, byte by byte but for addresses."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import wait_for_end
from tests.scenarios.resptalk import RespTalk, Word, command
from tests.scenarios.rewriting import Front, Side, direct, plain_slots, start_front, told_slots
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud
from tests.standins.resp import ask

CLUSTER, GROUP = "clu", "grp"
NODES = {CLUSTER: "clu-0001-001", GROUP: "grp-001"}
"""The node that is spoken with; keys with ``{b}`` are its own, those with ``{a}`` another one's."""
MASKED = (
    (re.compile(rb"(\$2\r\nid\r\n):\d+"), rb"\1:"),
    (re.compile(rb"\+\d+\.\d+ \[0 [\d.]+:\d+\]"), b"+when [0 who]"),
    (re.compile(rb"\+FULLRESYNC \w+ \d+"), b"+FULLRESYNC"),
)
"""What a node answers otherwise each time."""
MEBIBYTE = 1 << 20
FALLBACKS = "natproxy_rewrite_fallbacks_total"


class Conversation:
    """One connection, all that was heard on it, and another one to the node itself."""

    def __init__(self, talk: RespTalk, where: tuple[str, int]) -> None:
        self.talk = talk
        self._where = where
        self.heard: list[bytes] = []

    def ask(self, *words: Word) -> None:
        """Send a command, and hear one reply."""
        self.talk.say(*words)
        self.hear()

    def ask_all(self, *commands: tuple[Word, ...]) -> None:
        """Send many commands at once, and hear as many replies."""
        self.say(b"".join(command(*words) for words in commands))
        self.hear(len(commands))

    def say(self, data: bytes) -> None:
        """Send anything."""
        self.talk.talk.say(data)

    def hear(self, count: int = 1) -> None:
        """Hear so many replies or messages."""
        self.heard += [self.talk.hear().raw for _ in range(count)]

    def hear_the_end(self) -> None:
        """Hear all that comes until the node closes."""
        self.heard.append(self.talk.talk.hear_all_or_reset())

    def beside(self, *words: str) -> None:
        """Have somebody else ask the node."""
        ask(*self._where, *words)


def inline(one: Conversation) -> None:
    for line in (
        b"PING\r\n",
        b"set {b}1 7\r\n",
        b"GET {b}1\n",
        b"  echo   x  \r\n",
        b"NONSENSE a b\r\n",
        b"EXISTS {b}1\r\n",
    ):
        one.say(line)
        one.hear()
    one.say(b"\r\n\r\n*0\r\n*-1\r\nPING\r\n")
    one.hear()


def inline_quoted(one: Conversation) -> None:
    one.say(b'ECHO "a b"\r\n')
    one.hear()
    one.ask("GET", "{b}1")


def protocols(one: Conversation) -> None:
    one.ask("HELLO", "3")
    one.ask("HSET", "{b}h", "f", "v")
    for words in (("HGETALL", "{b}h"), ("ZADD", "{b}z", "1.5", "m"), ("ZSCORE", "{b}z", "m"), ("GET", "{b}none")):
        one.ask(*words)
    for kind in ("string", "integer", "double", "null", "array", "set", "map", "attrib", "verbatim", "true", "bignum"):
        one.ask("DEBUG", "PROTOCOL", kind)
    one.ask("LOLWUT")
    one.ask_all(("HELLO", "2"), ("HGETALL", "{b}h"), ("GET", "{b}none"), ("HELLO", "3"), ("SMEMBERS", "{b}none"))
    one.ask("RESET")
    for words in (("HGETALL", "{b}h"), ("HELLO", "4"), ("HELLO", "x"), ("AUTH", "wrong")):
        one.ask(*words)
    one.ask("HELLO")


def pushed_before_its_reply(one: Conversation) -> None:
    one.ask("HELLO", "3")
    one.say(command("DEBUG", "PROTOCOL", "push") + command("PING"))
    one.hear(3)


def transactions(one: Conversation) -> None:
    one.ask_all(("MULTI",), ("SET", "{b}1", "1"), ("GET", "{b}1"), ("EVAL", "return {1, {2, 'x'}}", "0"), ("EXEC",))
    one.ask_all(("MULTI",), ("NONSENSE",), ("EXEC",), ("EXEC",), ("DISCARD",), ("MULTI",), ("MULTI",), ("DISCARD",))
    one.ask("WATCH", "{b}1")
    one.beside("SET", "{b}1", "2")
    one.ask_all(("MULTI",), ("GET", "{b}1"), ("EXEC",), ("MULTI",), ("LPUSH", "{b}1", "x"), ("PING",), ("EXEC",))
    one.ask_all(("MULTI",), *[("ECHO", number) for number in range(500)], ("EXEC",))


def subscriptions(one: Conversation) -> None:
    one.say(command("SUBSCRIBE", "c1", "c2") + command("PSUBSCRIBE", "p*"))
    one.hear(3)
    one.beside("PUBLISH", "c1", "$-1\r\n-MOVED 1 10.0.0.1:6379\r\n")
    one.beside("PUBLISH", "p1", "two")
    one.hear(2)
    one.ask("PING")
    one.ask("PING", "said")
    one.ask("GET", "{b}1")
    one.say(command("UNSUBSCRIBE"))
    one.hear(2)
    one.say(command("SUBSCRIBE", "c3") + command("PUNSUBSCRIBE", "p*", "q*") + command("UNSUBSCRIBE", "c3"))
    one.hear(4)
    one.ask_all(("PING",), ("UNSUBSCRIBE",), ("PUNSUBSCRIBE",), ("GET", "{b}1"))


def subscriptions_in_resp3(one: Conversation) -> None:
    one.ask("HELLO", "3")
    one.say(command("SUBSCRIBE", "c1", "c2") + command("GET", "{b}1") + command("PSUBSCRIBE", "p*"))
    one.hear(4)
    one.beside("PUBLISH", "c2", "message")
    one.hear()
    one.ask_all(("HGETALL", "{b}none"), ("LRANGE", "{b}none", "0", "-1"))
    one.say(command("UNSUBSCRIBE") + command("PING"))
    one.hear(3)
    one.ask("RESET")
    one.ask("PING")


def shard_subscriptions(one: Conversation) -> None:
    one.ask("SSUBSCRIBE", "{b}1")
    one.beside("SPUBLISH", "{b}1", "message")
    one.hear()
    one.ask("SSUBSCRIBE", "{b}2")
    one.say(command("SUNSUBSCRIBE"))
    one.hear(2)
    one.ask_all(("GET", "{b}1"), ("PING",))


def blocking(one: Conversation) -> None:
    one.say(command("BLPOP", "{b}l", "0") + command("PING", "after") + command("GET", "{b}1"))
    one.beside("RPUSH", "{b}l", "x", "y")
    one.hear(3)
    one.ask("BLPOP", "{b}none", "0.05")
    one.ask("XREAD", "BLOCK", "50", "STREAMS", "{b}s", "$")
    one.ask("BLMOVE", "{b}l", "{b}m", "LEFT", "RIGHT", "1")


def tracking(one: Conversation) -> None:
    one.ask("HELLO", "3")
    one.ask_all(("CLIENT", "TRACKING", "ON"), ("SET", "{b}1", "1"), ("GET", "{b}1"))
    one.beside("SET", "{b}1", "2")
    one.hear()
    one.ask_all(("GET", "{b}1"), ("CLIENT", "TRACKING", "OFF"), ("GET", "{b}1"))


def large(one: Conversation) -> None:
    value = b"\r\n-MOVED 1 10.0.0.1:6379\r\n" * (3 * MEBIBYTE // 26)
    one.ask("SET", "{b}large", value)
    one.ask_all(("GET", "{b}large"), ("GET", "{b}none"), ("STRLEN", "{b}large"), ("GET", "{b}large"))
    one.ask_all(*[("SET", f"{{b}}{number}", "x" * (number % 300)) for number in range(3000)])
    one.ask_all(*[("GET", f"{{b}}{number}") for number in range(3000)])
    one.ask("MGET", *[f"{{b}}{number}" for number in range(2000)])
    one.ask("RPUSH", "{b}list", *range(5000))
    one.ask("LRANGE", "{b}list", "0", "-1")
    one.ask("COMMAND", "DOCS")
    one.ask("COMMAND")


def odd_commands(one: Conversation) -> None:
    for words in (
        ("NONSENSE",),
        ("CLUSTER", "KEYSLOT", "x"),
        ("CLUSTER", "NONSENSE"),
        ("CLUSTER",),
        ("CLUSTER", "SLOTS", "too", "many"),
        ("CLUSTER", "REPLICAS", "nobody"),
        ("ROLE", "x"),
        ("EVAL", "return redis.error_reply('ERR MOVED 1 10.0.0.1:6379')", "0"),
        ("EVAL", "return {redis.error_reply('MOVED 1 10.0.0.1:6379')}", "0"),
        ("EVAL", "return {err='READONLYX no'}", "0"),
        ("", ""),
        ("x" * 200,),
        ("CLIENT", "NO-EVICT", "on"),
        ("CLIENT", "SETNAME", "test"),
        ("CLIENT", "GETNAME"),
        ("QUIT",),
    ):
        one.ask(*words)
    one.hear_the_end()


def moved(one: Conversation) -> None:
    one.ask_all(("GET", "{a}1"), ("SET", "{b}1", "1"), ("GET", "{a}1"), ("GET", "{b}1"))
    one.ask_all(("MULTI",), ("GET", "{b}1"), ("SET", "{a}1", "1"), ("EXEC",), ("MGET", "{a}1", "{b}1"))


def reply_off(one: Conversation) -> None:
    one.say(command("CLIENT", "REPLY", "OFF") + command("SET", "{b}1", "1") + command("GET", "{b}1"))
    one.ask("CLIENT", "REPLY", "ON")
    one.ask("GET", "{b}1")
    one.say(command("CLIENT", "REPLY", "SKIP") + command("SET", "{b}1", "2") + command("GET", "{b}1"))
    one.hear()


def monitor(one: Conversation) -> None:
    one.ask("MONITOR")
    one.beside("ECHO", "-MOVED 1 10.0.0.1:6379")
    one.hear()
    one.say(command("QUIT"))
    one.hear_the_end()


def replica_s(one: Conversation) -> None:
    one.ask("PSYNC", "?", "-1")


def garbage(data: bytes) -> Callable[[Conversation], None]:
    def send(one: Conversation) -> None:
        one.ask("PING")
        one.say(data)
        one.hear_the_end()

    return send


def subscribed_in_a_transaction(one: Conversation) -> None:
    one.ask_all(("MULTI",), ("SUBSCRIBE", "c"), ("PING",))
    one.say(command("EXEC") + command("PING"))
    one.hear(2)


class Scenario(NamedTuple):
    act: Callable[[Conversation], None]
    unread: str | None = None
    """Why it is read along with no longer in the end."""
    caches: tuple[str, ...] = (CLUSTER, GROUP)
    is_over: bool = False
    """The node has closed the connection."""


SCENARIOS = {
    "inline": Scenario(inline),
    "inline-quoted": Scenario(inline_quoted),
    "protocols": Scenario(protocols),
    "push-as-a-reply": Scenario(pushed_before_its_reply),
    "transactions": Scenario(transactions),
    "subscriptions": Scenario(subscriptions),
    "subscriptions-in-resp3": Scenario(subscriptions_in_resp3),
    "shard-subscriptions": Scenario(shard_subscriptions),
    "blocking": Scenario(blocking),
    "tracking": Scenario(tracking),
    "large": Scenario(large),
    "odd-commands": Scenario(odd_commands, is_over=True),
    "moved": Scenario(moved, caches=(CLUSTER,)),
    "reply-off": Scenario(reply_off, "reply-off"),
    "monitor": Scenario(monitor, "monitor", is_over=True),
    "replica": Scenario(replica_s, "replication"),
    "subscribed-in-a-transaction": Scenario(subscribed_in_a_transaction, "answer"),
    "no-bulk": Scenario(garbage(b"*2\r\n:1\r\n"), "request", is_over=True),
    "no-number": Scenario(garbage(b"*2\r\n$abc\r\n"), "request", is_over=True),
    "too-many": Scenario(garbage(b"*9999999999\r\n"), "request", is_over=True),
    "no-text": Scenario(garbage(b"\xff\xfe 'x\r\n"), is_over=True),
}

ways = pytest.mark.parametrize(
    ("side", "cache", "name"),
    [
        pytest.param(side, cache, name, id=f"{name}-{side}-{cache}")
        for side in ("clear", "tls")
        for name, scenario in SCENARIOS.items()
        for cache in scenario.caches
    ],
)


@pytest.fixture(scope="module")
def fronts(clusters: Cloud, module_natproxy: Natproxies) -> dict[Side, Front]:
    caches = [{"id": cache} for cache in NODES]
    return {
        "clear": start_front(module_natproxy, clusters, "clear", caches=caches),
        "tls": start_front(module_natproxy, clusters, "tls", caches=caches, workers=2),
    }


def heard(scenario: Scenario, talk: RespTalk, where: tuple[str, int]) -> list[bytes]:
    ask(*where, "FLUSHALL")
    conversation = Conversation(talk, where)
    scenario.act(conversation)
    return [_masked(raw) for raw in conversation.heard]


def _masked(raw: bytes) -> bytes:
    for pattern, instead in MASKED:
        raw = pattern.sub(instead, raw)
    return raw


def as_told(front: Front, raws: list[bytes]) -> list[bytes]:
    """Return what the node said with natproxy's ports where it redirects."""
    members = [f"clu-000{number}-001" for number in (1, 2, 3)]
    told = {" {}:{}\r\n".format(*front.cloud.where(member)): front.node_port(member) for member in members}
    for private, port in told.items():
        raws = [raw.replace(private.encode(), f" {front.ip}:{port}\r\n".encode()) for raw in raws]
    return raws


@ways
def test_what_comes_back_is_what_the_node_says(fronts: dict[Side, Front], side: Side, cache: str, name: str) -> None:
    scenario, front, member = SCENARIOS[name], fronts[side], NODES[cache]
    where = front.cloud.where(member)
    expected = as_told(front, heard(scenario, direct(front.cloud, member), where))
    talk, logged = front.dial(front.node_port(member)), len(front.daemon.log)
    assert heard(scenario, talk, where) == expected
    if not scenario.is_over and scenario.unread is None and cache == CLUSTER:
        said = direct(front.cloud, member).ask("CLUSTER", "SLOTS").value
        assert plain_slots(talk.ask("CLUSTER", "SLOTS").value) == told_slots(front.shown(cache), said), "it is in step"
    talk.talk.close()
    line = front.daemon.wait_for_log("connection ended", since=logged, **talk.talk.logged_as)
    assert line.get("unread") == scenario.unread


# Those that are read along with end as all others do.


def test_connections_read_along_with_or_no_longer_are_counted_and_drained_as_all_others(
    fronts: dict[Side, Front],
) -> None:
    front, member = fronts["clear"], NODES[CLUSTER]
    daemon, port = front.daemon, front.node_port(member)
    labels = {"cache": CLUSTER, "node": f"{member}/0001", "kind": "node", "port": str(port)}
    daemon.wait_for_metric(0, "natproxy_connections_open", **labels)
    fallbacks = {reason: daemon.metric(FALLBACKS, reason=reason, **labels) for reason in ("monitor", "reply-off")}
    opened = daemon.metric("natproxy_connections_total", **labels)
    logged, talks = len(daemon.log), [front.dial(port) for _ in range(3)]
    assert talks[0].ask("CLUSTER", "SLOTS").value
    assert talks[1].ask("MONITOR").value == "OK"
    talks[2].say("CLIENT", "REPLY", "OFF")
    daemon.wait_for_metric(3, "natproxy_connections_open", **labels)
    assert daemon.metric("natproxy_connections_total", **labels) == opened + 3
    for reason, before in fallbacks.items():
        daemon.wait_for_metric(before + 1, FALLBACKS, reason=reason, **labels)
    caches = daemon.config["caches"]
    daemon.config["caches"] = [{"id": GROUP}]
    daemon.reload()
    try:
        assert talks[0].ask("PING").value == "PONG", "it may live on for a while"
        assert [talk.talk.ended() for talk in talks] == ["eof"] * 3
        lines = [daemon.wait_for_log("connection ended", since=logged, **talk.talk.logged_as) for talk in talks]
        assert [line["outcome"] for line in lines] == ["route-removed"] * 3
        assert [line.get("unread") for line in lines] == [None, "monitor", "reply-off"]
        daemon.wait_until_gone(f"{member}/0001")
    finally:
        daemon.config["caches"] = caches
        daemon.reload()
    assert front.node_port(member) == port
    assert front.dial(port).ask("CLUSTER", "SLOTS").value


def test_a_worker_that_is_replaced_rewrites_as_the_one_before(fronts: dict[Side, Front]) -> None:
    front, before = fronts["tls"], fronts["tls"].daemon.workers()
    replica = front.node_port("grp-002")

    def rewrites() -> bool:
        slots = front.dial(front.node_port(NODES[CLUSTER])).ask("CLUSTER", "SLOTS").value
        assert {node[0] for row in slots for node in row[2:]} == {front.ip}
        role = front.dial(front.node_port(NODES[GROUP])).ask("ROLE").value
        return [replica_told[:2] for replica_told in role[2]] == [[front.ip, str(replica)]]

    assert rewrites()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    eventually(lambda: len({*front.daemon.workers()} - {*before}) == len(before), "there are new workers")
    assert all(rewrites() for _ in range(6))
