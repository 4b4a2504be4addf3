from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from natproxy import cli
from tests.cli.running import GOOD, Done, PutDaemon, Run


@pytest.fixture(autouse=True)
def _no_config_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATPROXY_CONFIG", raising=False)
    monkeypatch.delenv("NATPROXY_TRACEBACK", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "natproxy.yaml"
    path.write_text(GOOD + f"state_dir: {tmp_path}\n")
    return path


@pytest.fixture
def natproxy(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command line in this process."""

    def run(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["natproxy", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Done(exit_.value.code, out, err)

    return run


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> PutDaemon:
    """Return what puts another daemon in the daemon's place."""

    def replace(run: Callable[[Path], int]) -> None:
        module = types.ModuleType("natproxy.controller.daemon")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "natproxy.controller.daemon", module)

    return replace
