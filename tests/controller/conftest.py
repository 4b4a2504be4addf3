"""Fixtures of the controller's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.config import Aws
from natproxy.controller import daemon as daemon_module
from natproxy.controller import engine as engine_module
from natproxy.controller import workers as workers_module
from tests.controller.host import FakeAws, Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> Iterator[Host]:
    assert logging_as_it_was is None
    host = Host(tmp_path)

    def elasticache(_aws: Aws) -> FakeAws:
        return host.aws

    monkeypatch.setattr(engine_module, "ElastiCache", elasticache)
    monkeypatch.setattr(daemon_module, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(workers_module, "RESTART_SECONDS", 0.02)
    yield host
    host.notify.close()


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("natproxy")
    before = root.handlers[:], root.level, ours.level
    ours.setLevel(logging.INFO)
    yield
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)
