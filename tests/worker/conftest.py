"""A node, and a worker in a thread that the tests of a module share; each test serves ports of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from natproxy.worker import process
from tests.worker.hand import listen
from tests.worker.running import Running


@pytest.fixture(scope="module")
def shared_running() -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "TICK_SECONDS", 0.05)  # for counts to come soon
        with Running() as running:
            yield running


@pytest.fixture
def running(shared_running: Running) -> Running:
    """A worker; what it said before is forgotten."""
    shared_running.said.clear()
    return shared_running


@pytest.fixture
def node() -> Iterator[socket.socket]:
    """A node that listens."""
    with listen() as sock:
        yield sock
