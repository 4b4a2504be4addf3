from __future__ import annotations

import pytest

from bench import redisbench

SAID = """WARNING: Could not fetch server CONFIG
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","50000.00","0.044","0.008","0.030","0.095","0.100","0.175"
"GET","100000.00","0.050","0.008","0.050","0.071","0.300","0.207"
"""


def test_what_redis_benchmark_says_is_read() -> None:
    answer = redisbench.parse(SAID, requests=1000)
    assert answer.requests == 2000
    assert answer.seconds == pytest.approx(0.03)
    assert [answer.p50, answer.p99] == pytest.approx([0.04, 0.2])


@pytest.mark.parametrize("said", ["", "Error: Connection refused\n", SAID.splitlines()[1] + "\n"])
def test_anything_else_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="redis-benchmark"):
        redisbench.parse(said, requests=1000)


def test_the_command_line_names_each_test_and_asks_for_csv() -> None:
    argv = redisbench.command("127.0.0.1", 7000, ["get", "set"], 50, ["-c", "4"])
    assert argv == [
        "redis-benchmark", "-h", "127.0.0.1", "-p", "7000", "-t", "get,set", "-n", "50", "--csv", "-c", "4",
    ]  # fmt: skip
