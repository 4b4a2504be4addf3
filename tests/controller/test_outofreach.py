from __future__ import annotations

import pytest

from natproxy.controller.outofreach import OutOfReach
from natproxy.messages import RouteCounts
from natproxy.model import HandshakeFailure, Outcome

PORT, OTHER = 6379, 6380
REFUSED, NODE_HANDSHAKE = Outcome.REFUSED.value, Outcome.NODE_HANDSHAKE.value


def counts(port: int = PORT, **handshakes: int) -> RouteCounts:
    """What a worker says of a port on which these handshakes with the node took place."""
    return RouteCounts(port, 0, 0, {}, 0, 0, (), 0.0, (), {}, handshakes)


@pytest.fixture
def ports() -> OutOfReach:
    return OutOfReach()


def test_the_last_reason_is_told_and_the_first_failure_is_news(ports: OutOfReach) -> None:
    assert ports.failed(PORT, REFUSED, "refused")
    assert not ports.failed(PORT, REFUSED, "timed out")
    assert ports.reason(PORT) == "timed out"
    assert ports.reason(OTHER) is None
    assert len(ports) == 1


def test_a_node_that_answers_and_is_not_trusted_is_news_once_more(ports: OutOfReach) -> None:
    assert ports.failed(PORT, REFUSED, "refused")
    assert ports.failed(PORT, NODE_HANDSHAKE, "expired")
    assert not ports.failed(PORT, NODE_HANDSHAKE, "expired")
    assert not ports.failed(PORT, REFUSED, "refused")


def test_only_what_does_not_answer_is_asked(ports: OutOfReach) -> None:
    ports.failed(PORT, NODE_HANDSHAKE, "expired")
    ports.failed(OTHER, REFUSED, "refused")
    assert ports.to_be_asked() == [OTHER]


def test_a_node_that_was_not_trusted_and_then_fell_silent_is_not_well_because_it_answers(ports: OutOfReach) -> None:
    ports.failed(PORT, NODE_HANDSHAKE, "expired")
    ports.failed(PORT, REFUSED, "refused")
    assert ports.reason(PORT) == "refused"
    assert ports.to_be_asked() == []


def test_what_is_forgotten_is_news_again(ports: OutOfReach) -> None:
    assert not ports.forget(PORT)
    ports.failed(PORT, NODE_HANDSHAKE, "expired")
    assert ports.forget(PORT)
    assert not ports
    assert ports.failed(PORT, NODE_HANDSHAKE, "expired")


def test_handshakes_that_succeed_tell_that_a_node_is_trusted(ports: OutOfReach) -> None:
    ports.failed(PORT, NODE_HANDSHAKE, "expired")
    assert ports.counted([counts(OTHER, ok=1), counts(PORT, ok=2)]) == [PORT]
    assert not ports
    assert ports.counted([counts(PORT, ok=1)]) == []


@pytest.mark.parametrize(
    "handshakes", [{}, {HandshakeFailure.EXPIRED.value: 1}, {"ok": 1, HandshakeFailure.EXPIRED.value: 1}]
)
def test_others_do_not(ports: OutOfReach, handshakes: dict[str, int]) -> None:
    """With both kinds, nobody knows which came last."""
    ports.failed(PORT, NODE_HANDSHAKE, "expired")
    assert ports.counted([counts(PORT, **handshakes)]) == []
    assert ports.reason(PORT) == "expired"


def test_what_does_not_answer_is_not_well_for_a_handshake_of_before(ports: OutOfReach) -> None:
    ports.failed(PORT, REFUSED, "refused")
    assert ports.counted([counts(PORT, ok=1)]) == []
