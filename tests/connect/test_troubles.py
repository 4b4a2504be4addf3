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
    assert troubles.dial_failed(6379, *REFUSED, 0.0)
    troubles.portal_failed("nobody listens")
    assert not troubles.dial_failed(6379, *REFUSED, 0.0)
    troubles.portal_answered(ATTEMPT)
    assert [line for line in said if "127.0.0.1" in line] == []
    assert troubles.dial_failed(6379, *REFUSED, 0.0)
    troubles.portal_answered(ATTEMPT)
    assert said[-1] == "trouble: 127.0.0.1:6379 cannot be reached: natproxy does not listen there"


def test_many_ports_with_one_cause_are_one_trouble(troubles: Troubles, said: list[str]) -> None:
    for port in (6379, 6380):
        assert troubles.dial_failed(port, Outcome.CONNECT_TIMEOUT, f"203.0.113.73:{port}: no answer", 0.0)
    troubles.portal_answered(ATTEMPT)
    assert len(said) == 1
    assert "closed by a firewall or security group" in said[0]
    assert not troubles.dial_failed(6379, *REFUSED, 0.0)  # it is known
    troubles.dial_recovered(6379)
    assert len(said) == 1
    troubles.dial_recovered(6380)
    troubles.dial_recovered(6380)
    assert said[1:] == ["healed: 127.0.0.1:6380 answers again"]


def test_what_was_well_again_before_anybody_was_told_is_no_trouble(troubles: Troubles, said: list[str]) -> None:
    troubles.dial_failed(6379, *REFUSED, 0.0)
    troubles.dial_recovered(6379)
    troubles.dial_failed(6380, *REFUSED, 0.0)
    troubles.forget_all_but([6379])
    troubles.portal_answered(ATTEMPT)
    assert said == []


def test_a_refused_certificate_is_told_in_plain_words(troubles: Troubles, said: list[str]) -> None:
    detail = "alert: 203.0.113.73:6379 as cache.example.com: it gave up with the alert certificate revoked"
    troubles.dial_failed(6379, Outcome.NODE_HANDSHAKE, detail, 0.0)
    troubles.dial_failed(6380, Outcome.NODE_HANDSHAKE, "wrong-name: it is for another host", 0.0)
    troubles.portal_answered(ATTEMPT)
    assert "the certificate of dev1 has been revoked" in said[0]
    assert said[1].endswith("127.0.0.1:6380 cannot be reached: wrong-name: it is for another host")


def test_what_a_client_does_wrong_here_is_said_once_for_each_port(troubles: Troubles, said: list[str]) -> None:
    for port in (6379, 6379, 6380):
        troubles.ended(port, Outcome.TLS_ON_CLEAR_PORT)
    troubles.ended(6379, Outcome.CLIENT_CLOSED)
    assert [line.partition(" on ")[2][:14] for line in said] == ["127.0.0.1:6379", "127.0.0.1:6380"]
    assert "switch TLS off there" in said[0]


ALERT = "it gave up with the alert certificate revoked"


@pytest.mark.parametrize("outcome", [Outcome.NODE_TLS, Outcome.NODE_HANDSHAKE])
def test_a_refusal_is_over_when_a_later_connection_has_an_answer(
    troubles: Troubles, said: list[str], outcome: Outcome
) -> None:
    for now in (10.0, 20.0):
        troubles.dial_failed(6379, outcome, ALERT, now)
        troubles.portal_answered(ATTEMPT)
    assert len(said) == 1
    assert not troubles.got_through(6379, 15.0)  # it began before the last refusal
    assert len(said) == 1
    assert troubles.got_through(6379, 21.0)
    assert not troubles.got_through(6379, 22.0)
    assert said[1:] == ["healed: 127.0.0.1:6379 answers again"]
    assert troubles.dial_failed(6379, outcome, ALERT, 30.0)
    troubles.portal_answered(ATTEMPT)
    assert said[2].startswith("trouble: 127.0.0.1:6379 cannot be reached")


def test_a_new_bundle_ends_what_was_said_of_the_old_one_and_nothing_else(troubles: Troubles, said: list[str]) -> None:
    for port in (6379, 6380):
        troubles.dial_failed(port, Outcome.NODE_TLS, ALERT, 10.0)
    troubles.dial_failed(6381, *REFUSED, 10.0)
    troubles.portal_answered(ATTEMPT)
    assert len(said) == 2
    troubles.bundle_renewed()
    assert said[2:] == ["healed: 127.0.0.1:6380 is shown the new bundle's certificate from now on"]
    assert troubles.dial_failed(6379, Outcome.NODE_TLS, ALERT, 20.0)
    assert not troubles.dial_failed(6381, *REFUSED, 20.0)


def test_a_refused_certificate_is_told_from_a_portal_that_is_out_of_reach(troubles: Troubles) -> None:
    seen = []
    for text, is_refusal in (("revoked", True), ("it does not answer", False), ("revoked", True)):
        troubles.portal_failed(text, is_refusal=is_refusal)
        seen.append(troubles.is_refused)
    troubles.portal_answered(ATTEMPT)
    assert [*seen, troubles.is_refused] == [True, False, True, False]
