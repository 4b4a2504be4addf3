"""The log's writer: what is written arrives in order, and a reader who does not read stops nobody."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from natproxy.controller.linewriter import LineWriter


def test_lines_arrive_in_order_and_all_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file, LineWriter(file) as writer:
        for number in range(1000):
            assert writer.write(f"{number}\n") == len(str(number)) + 1
        writer.flush()
        assert writer.fileno() == file.fileno()
        assert not writer.isatty()
    assert path.read_text().split() == [str(number) for number in range(1000)]


def test_a_reader_who_does_not_read_blocks_nobody_and_what_was_left_out_is_counted() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe, os.fdopen(reading) as reader:
        writer = LineWriter(pipe, waiting_lines=50)
        line = "x" * 4095 + "\n"
        for _ in range(200):
            writer.write(line)
        assert not writer.drain(0.05)
        told = ""
        received = 0
        while not told:
            found = reader.readline()
            received += found == line
            told = found if "left out" in found else ""
        assert received + int(told.split()[0]) <= 200
        assert int(told.split()[0]) >= 200 - 50 - 16 - 1 - 2
        while not writer.drain(0.01):
            reader.readline()
        writer.__exit__(None, None, None)


def test_a_reader_who_is_gone_blocks_nobody_either() -> None:
    reading, writing = os.pipe()
    pipe = os.fdopen(writing, "w")
    os.close(reading)
    with LineWriter(pipe) as writer:
        for _ in range(10):
            writer.write("x\n")
            assert writer.drain(5)
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
