from __future__ import annotations

import logging

import pytest

from natproxy.controller.expiring import CERTIFICATE_SECONDS, CRL_SECONDS, DAY_SECONDS, Expiring
from natproxy.tls.expiry import Expiry

NOW = 1_700_000_000.0


def one(use: str, ends_in: float, *, subject: str = "CN=a", starts_in: float = -DAY_SECONDS) -> Expiry:
    return Expiry(use, subject, "" if use == "crl" else "01", NOW + ends_in, NOW + starts_in)


def said(*expiries: Expiry) -> list[tuple[int, str]]:
    return [(notice.level, notice.text) for notice in Expiring().due(expiries, NOW)]


def test_what_holds_for_long_is_nothing_to_speak_of() -> None:
    assert said(one("certificate", CERTIFICATE_SECONDS), one("crl", CRL_SECONDS)) == []


@pytest.mark.parametrize("use", ["certificate", "client_ca", "nodes_ca"])
def test_a_certificate_is_warned_of_a_month_before(use: str) -> None:
    assert said(one(use, CERTIFICATE_SECONDS - 1)) == [(logging.WARNING, "certificate expires soon")]


def test_a_revocation_list_is_warned_of_a_week_before() -> None:
    assert said(one("crl", CRL_SECONDS - 1)) == [(logging.WARNING, "revocation list expires soon")]


@pytest.mark.parametrize("use", ["certificate", "client_ca", "nodes_ca"])
def test_what_does_not_hold_is_an_error(use: str) -> None:
    assert said(one(use, 0)) == [(logging.ERROR, "certificate has expired")]
    assert said(one(use, 90 * DAY_SECONDS, starts_in=1)) == [(logging.ERROR, "certificate is not valid yet")]


def test_a_revocation_list_that_does_not_hold_keeps_people_out_and_that_is_said() -> None:
    ((level, text),) = said(one("crl", 0))
    assert level == logging.ERROR
    assert text.startswith("revocation list has expired, certificates of its issuer are refused")
    ((level, text),) = said(one("crl", 90 * DAY_SECONDS, starts_in=1))
    assert level == logging.ERROR
    assert text.startswith("revocation list is not valid yet, certificates of its issuer are refused")


def test_an_old_ca_beside_one_that_holds_is_no_error_but_an_intermediate_is() -> None:
    old, new = one("client_ca", -1), one("client_ca", 90 * DAY_SECONDS, subject="CN=b")
    assert said(old, new) == [(logging.WARNING, "certificate has expired")]
    assert said(old, one("nodes_ca", 90 * DAY_SECONDS)) == [(logging.ERROR, "certificate has expired")]
    leaf, intermediate = one("certificate", 90 * DAY_SECONDS), one("certificate", -1, subject="CN=b")
    assert said(leaf, intermediate) == [(logging.ERROR, "certificate has expired")]


def test_each_is_said_once_a_day_and_at_once_where_it_gets_worse() -> None:
    expiring = Expiring()
    soon = one("certificate", 1.5 * DAY_SECONDS)
    texts = {
        hour: [notice.text for notice in expiring.due([soon], NOW + hour * 3600.0)]
        for hour in (0, 1, 23, 24, 25, 36, 37, 60, 84)
    }
    assert {hour: found for hour, found in texts.items() if found} == {
        0: ["certificate expires soon"],
        24: ["certificate expires soon"],
        36: ["certificate has expired"],
        60: ["certificate has expired"],
        84: ["certificate has expired"],
    }


def test_a_new_one_is_said_of_at_once_and_the_others_are_not_said_again() -> None:
    expiring = Expiring()
    first, second = one("certificate", 5.0), one("certificate", 6.0)
    assert [notice.one for notice in expiring.due([first], NOW)] == [first]
    assert [notice.one for notice in expiring.due([first, second], NOW)] == [second]
    assert expiring.due([second], NOW) == []
    expiring.forget()
    assert [notice.one for notice in expiring.due([second], NOW)] == [second]


def test_a_clock_that_is_set_back_repeats_nothing() -> None:
    expiring = Expiring()
    assert len(expiring.due([one("certificate", 5.0)], NOW)) == 1
    assert expiring.due([one("certificate", 5.0)], NOW - 3600.0) == []
