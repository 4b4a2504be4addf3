"""What redis-cli says when it cannot go on is never taken for a reply."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.clients.journey import Seed
from tests.clients.rediscli import RedisCli, RedisCliError


@pytest.mark.parametrize(
    "said",
    [
        "\\nI/O error\\n",  # as it says when its ASKING is not answered
        "Error: Server closed the connection\\n",
        "(error) TRYAGAIN Multiple keys request during rehashing of slot\\n",
        "-> Redirected to slot [1] located at 127.0.0.1:1\\nCould not connect to Redis at 127.0.0.1:1: refused\\n",
        "",
    ],
)
def test_a_problem_is_no_reply(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-cli"
    program.write_text(f"#!/bin/sh\nread -r command\nprintf '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    client = RedisCli(Seed("127.0.0.1", 1, "me", None))
    with pytest.raises(RedisCliError):
        asyncio.run(client.set("key", "value"))
