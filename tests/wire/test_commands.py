from __future__ import annotations

import pytest

from natproxy.wire.commands import CONFIRMATIONS, LONGEST_NAME, WITH_SUBCOMMAND, Awaited, How, classify
from natproxy.wire.frames import is_one_request
from natproxy.wire.rewriter import Fallback, Reply
from tests.wire.talk import command

CLASSES: list[tuple[str, Awaited | Fallback | None]] = [
    ("CLUSTER SLOTS", Awaited(How.TOPOLOGY, Reply.SLOTS)),
    ("CLUSTER SHARDS", Awaited(How.TOPOLOGY, Reply.SHARDS)),
    ("CLUSTER NODES", Awaited(How.TOPOLOGY, Reply.NODES)),
    ("CLUSTER REPLICAS 0123", Awaited(How.TOPOLOGY, Reply.REPLICAS)),
    ("CLUSTER SLAVES 0123", Awaited(How.TOPOLOGY, Reply.REPLICAS)),
    ("CLUSTER MYID", None),
    ("CLUSTER", None),
    ("ROLE", Awaited(How.TOPOLOGY, Reply.ROLE)),
    ("INFO", Awaited(How.TOPOLOGY, Reply.INFO)),
    ("INFO all server", Awaited(How.TOPOLOGY, Reply.INFO)),
    ("MULTI", Awaited(How.MULTI)),
    ("EXEC", Awaited(How.EXEC)),
    ("DISCARD", Awaited(How.DISCARD)),
    ("RESET", Awaited(How.RESET)),
    ("MONITOR", Awaited(How.MONITOR)),
    ("SUBSCRIBE a b", Awaited(How.SUBSCRIBE, word=b"subscribe", confirmations=2)),
    ("PSUBSCRIBE a", Awaited(How.SUBSCRIBE, word=b"psubscribe", confirmations=1)),
    ("SSUBSCRIBE a", Awaited(How.SUBSCRIBE, word=b"ssubscribe", confirmations=1)),
    ("UNSUBSCRIBE", Awaited(How.SUBSCRIBE, word=b"unsubscribe")),
    ("PUNSUBSCRIBE a b c", Awaited(How.SUBSCRIBE, word=b"punsubscribe", confirmations=3)),
    ("SUNSUBSCRIBE", Awaited(How.SUBSCRIBE, word=b"sunsubscribe")),
    ("CLIENT REPLY OFF", Fallback.REPLY_OFF),
    ("CLIENT REPLY", Fallback.REPLY_OFF),
    ("CLIENT TRACKING ON", None),
    ("CLIENT", None),
    ("SYNC", Fallback.REPLICATION),
    ("PSYNC ? -1", Fallback.REPLICATION),
    ("REPLCONF ACK 1", Fallback.REPLICATION),
    ("GET x", None),
    ("HELLO 3", None),
    ("QUIT", None),
    ("PUBLISH a b", None),
    ("WATCH a", None),
    ("EVAL x 0", None),
    ("NODES", None),
    ("cluster|slots", None),
    ("SLOTS CLUSTER", None),
]


def first_words(line: str) -> tuple[bytes, bytes, int]:
    words = line.upper().encode().split()
    return words[0], words[1] if len(words) > 1 else b"", len(words)


@pytest.mark.parametrize(("line", "awaited"), CLASSES)
def test_how_a_command_is_answered(line: str, awaited: Awaited | Fallback | None) -> None:
    assert classify(*first_words(line)) == awaited


@pytest.mark.parametrize(("line", "awaited"), CLASSES)
def test_the_short_way_takes_no_command_that_is_not_plain(line: str, awaited: Awaited | Fallback | None) -> None:
    """The names stand in a compiled expression as well (frames.py). Those with subcommands it leaves alone."""
    for words in (line.upper().split(), line.lower().split(), line.title().split()):
        is_plain = awaited is None and words[0].upper().encode() not in WITH_SUBCOMMAND
        assert (is_one_request(command(*words)) is not None) is (is_plain and len(words) <= 5)


def test_names_are_no_longer_than_what_is_looked_at() -> None:
    names = [first_words(line)[0] for line, awaited in CLASSES if awaited is not None]
    assert max(map(len, names)) <= LONGEST_NAME
    assert max(map(len, CONFIRMATIONS)) <= LONGEST_NAME
