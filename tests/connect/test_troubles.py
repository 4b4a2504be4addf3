from __future__ import annotations

import pytest

from natproxy.connect.faults import Attempt
from natproxy.connect.troubles import Troubles
from natproxy.model import Outcome

ATTEMPT = Attempt("cache.example.com", 6378, "dev1", "2027-01-01")
REFUSED = (Outcome.REFUSED, "203.0.113.73:6379: connection refused")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def troubles(said: list[str]) -> Troubles:
    return Troubles(lambda event, line: said.append(f"{event}: {line}"), lambda port: f"127.0.0.1:{port}")


def test_the_portal_s_trouble_is_said_once_and_so_is_its_end(troubles: Troubles, said: list[str]) -> None:
    for text in ("it does not answer", "it does not answer", "the certificate has been revoked"):
        troubles.portal_failed(text)
        assert troubles.is_portal_lost
    troubles.portal_answered(ATTEMPT)
    troubles.portal_answered(ATTEMPT)
    assert not troubles.is_portal_lost
    assert said == [
        "trouble: it does not answer",
        "trouble: the certificate has been revoked",
        "healed: natproxy on cache.example.com:6378 answers again",
    ]
    troubles.portal_failed("it does not answer")
    assert said[-1] == "trouble: it does not answer"


def test_a_port_s_trouble_is_said_only_where_the_portal_is_well(troubles: Troubles, said: list[str]) -> None:
    assert troubles.dial_failed(6379, *REFUSED)
    troubles.portal_failed("nobody listens")
    assert not troubles.dial_failed(6379, *REFUSED)
    troubles.portal_answered(ATTEMPT)
    assert [line for line in said if "127.0.0.1" in line] == []
    assert troubles.dial_failed(6379, *REFUSED)
    troubles.portal_answered(ATTEMPT)
    assert said[-1] == "trouble: 127.0.0.1:6379 cannot be reached: natproxy does not listen there"


def test_many_ports_with_one_cause_are_one_trouble(troubles: Troubles, said: list[str]) -> None:
    for port in (6379, 6380):
        assert troubles.dial_failed(port, Outcome.CONNECT_TIMEOUT, f"203.0.113.73:{port}: no answer")
    troubles.portal_answered(ATTEMPT)
    assert len(said) == 1
    assert "closed by a firewall or security group" in said[0]
    assert not troubles.dial_failed(6379, *REFUSED)  # it is known
    troubles.dial_recovered(6379)
    assert len(said) == 1
    troubles.dial_recovered(6380)
    troubles.dial_recovered(6380)
    assert said[1:] == ["healed: 127.0.0.1:6380 answers again"]


def test_what_was_well_again_before_anybody_was_told_is_no_trouble(troubles: Troubles, said: list[str]) -> None:
    troubles.dial_failed(6379, *REFUSED)
    troubles.dial_recovered(6379)
    troubles.dial_failed(6380, *REFUSED)
    troubles.forget_all_but([6379])
    troubles.portal_answered(ATTEMPT)
    assert said == []


def test_a_refused_certificate_is_told_in_plain_words(troubles: Troubles, said: list[str]) -> None:
    detail = "alert: 203.0.113.73:6379 as cache.example.com: it gave up with the alert certificate revoked"
    troubles.dial_failed(6379, Outcome.NODE_HANDSHAKE, detail)
    troubles.dial_failed(6380, Outcome.NODE_HANDSHAKE, "wrong-name: it is for another host")
    troubles.portal_answered(ATTEMPT)
    assert "the certificate of dev1 has been revoked" in said[0]
    assert said[1].endswith("127.0.0.1:6380 cannot be reached: wrong-name: it is for another host")


def test_what_a_client_does_wrong_here_is_said_once_for_each_port(troubles: Troubles, said: list[str]) -> None:
    for port in (6379, 6379, 6380):
        troubles.ended(port, Outcome.TLS_ON_CLEAR_PORT)
    troubles.ended(6379, Outcome.CLIENT_CLOSED)
    assert [line.partition(" on ")[2][:14] for line in said] == ["127.0.0.1:6379", "127.0.0.1:6380"]
    assert "switch TLS off there" in said[0]
