"""Machines on the guide's network: see site.py. Each test here needs root, and more time than others have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network import guide
from tests.network.guide import GuideNetwork
from tests.system import machine as machines
from tests.system import playbook
from tests.system.clients import Clients
from tests.system.image import mirror
from tests.system.machine import Machine
from tests.system.service import Service
from tests.system.site import Site, built_site

HERE = Path(__file__).parent
TEST_SECONDS = 900
"""The first test makes what all others begin with."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def possible() -> None:
    """Skip where there can be no machine, or nobody who applies the role."""
    reason = guide.why_not_here() or machines.why_not_here() or playbook.why_not_here()
    if reason is None and mirror() is None:
        reason = "this host's apt knows no Debian mirror"
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def site(possible: None) -> Iterator[Site]:
    """The one site of all tests, where the role has put natproxy: whoever disturbs it puts it right again."""
    with built_site() as built:
        yield built


@pytest.fixture
def clients(site: Site) -> Iterator[Clients]:
    """Clients that connect again and again; all have been served, and go on."""
    with site.clients() as running:
        yield running


@pytest.fixture
def service(site: Site) -> Service:
    """The service there."""
    return site.service


@pytest.fixture
def machine(site: Site) -> Machine:
    """The machine there."""
    return site.machine


@pytest.fixture
def network(site: Site) -> GuideNetwork:
    """The network there."""
    return site.network
