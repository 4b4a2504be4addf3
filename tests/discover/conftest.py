from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.discover.samples import account
from tests.standins.aws import AwsServer


def use_environ(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    """Let boto3 see these variables and no others of AWS."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower() in {"no_proxy", "http_proxy", "https_proxy", "all_proxy"}:
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    """The stand-in with one cache of each shape, and this process's environment pointing to it."""
    with AwsServer(account()) as server:
        use_environ(monkeypatch, server.environ)
        yield server
