from __future__ import annotations

from pathlib import Path

import pytest

from tests.ansible.playing import ANSIBLE, Stage


@pytest.fixture(scope="module", autouse=True)
def _ansible() -> None:
    if not (ANSIBLE / ".installed").exists():
        pytest.skip("Ansible is not installed: make ansible")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("ansible"))


@pytest.fixture(scope="module")
def wheel(stage: Stage) -> Path:
    """Return a file that has the name of a wheel: in check mode nobody looks inside."""
    path = stage.directory / "natproxy-0.1.0-py3-none-any.whl"
    path.write_bytes(b"a wheel")
    return path
