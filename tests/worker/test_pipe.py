"""Pipes between sockets: nothing is lost, none is left behind."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator

import pytest

from natproxy.worker.pipe import MOST_PIPES, Pipe, Pipes
from tests.worker.hand import tcp_pair

WORDS = random.Random(3).randbytes(200_000)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    pipes = Pipes()
    yield pipes
    pipes.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def take(pipes: Pipes) -> Pipe:
    pipe = pipes.take()
    assert pipe is not None
    return pipe


def drain(sock: socket.socket) -> bytes:
    got = bytearray()
    try:
        while data := sock.recv(1 << 20):
            got += data
    except BlockingIOError:
        pass
    return bytes(got)


def test_what_goes_in_comes_out(pipes: Pipes) -> None:
    pipe = take(pipes)
    (ours, theirs), (out, far) = tcp_pair(), tcp_pair()
    with ours, theirs, out, far:
        theirs.sendall(WORDS)
        moved = b""
        while len(moved) < len(WORDS):
            count = pipe.fill(ours.fileno(), 1 << 18)
            assert len(pipe) == count > 0
            assert pipe.empty(out.fileno())
            assert len(pipe) == 0
            moved += drain(far)
        assert moved == WORDS
        with pytest.raises(BlockingIOError):
            pipe.fill(ours.fileno(), 1 << 18)
        theirs.close()
        assert pipe.fill(ours.fileno(), 1 << 18) == 0
    pipes.give_back(pipe)


def test_no_more_is_taken_than_is_asked_for(pipes: Pipes) -> None:
    pipe = take(pipes)
    ours, theirs = tcp_pair()
    with ours, theirs:
        theirs.sendall(WORDS)
        assert pipe.fill(ours.fileno(), 1000) == 1000
        assert pipe.fill(ours.fileno(), 50) == 50
        assert len(pipe) == 1050
    pipes.give_back(pipe)


def test_what_a_socket_has_no_room_for_stays(pipes: Pipes) -> None:
    pipe = take(pipes)
    ours, theirs = tcp_pair()
    out, far = tcp_pair(1 << 16, 1 << 16)
    with ours, theirs, out, far:
        written = 0
        try:
            while True:
                written += out.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        theirs.sendall(WORDS[:50_000])
        count = pipe.fill(ours.fileno(), 1 << 18)
        assert not pipe.empty(out.fileno())
        assert len(pipe) == count
        got = b""
        while len(got) < written + count:
            got += drain(far)
            pipe.empty(out.fileno())
        assert got[written:] == WORDS[:count]
    pipes.give_back(pipe)


def test_a_pipe_is_used_again_and_one_that_holds_something_never(pipes: Pipes) -> None:
    first = take(pipes)
    pipes.give_back(first)
    assert pipes.take() is first
    ours, theirs = tcp_pair()
    with ours, theirs:
        theirs.sendall(b"secret")
        first.fill(ours.fileno(), 100)
    pipes.give_back(first)
    second = take(pipes)
    assert second is not first
    assert len(second) == 0
    pipes.give_back(second)


def test_there_are_so_many_and_each_comes_back(pipes: Pipes) -> None:
    taken = [take(pipes) for _ in range(MOST_PIPES)]
    assert pipes.take() is None
    pipes.give_back(taken.pop())
    taken.append(take(pipes))
    assert pipes.take() is None
    ours, theirs = tcp_pair()
    with ours, theirs:
        theirs.sendall(b"x")
        taken[0].fill(ours.fileno(), 1)
    for pipe in taken:
        pipes.give_back(pipe)
    for pipe in [take(pipes) for _ in range(MOST_PIPES)]:
        pipes.give_back(pipe)


def test_where_no_descriptor_is_left_there_is_no_pipe(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files", flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe2", fail)
        assert pipes.take() is None
    pipes.give_back(take(pipes))


@pytest.mark.parametrize(("number", "is_over"), [(errno.EPERM, True), (errno.ENOSYS, True), (errno.ECONNRESET, False)])
def test_where_splicing_is_impossible_nobody_tries_again(pipes: Pipes, number: int, is_over: bool) -> None:
    pipes.give_back(take(pipes))
    assert pipes.give_up(OSError(number, "")) is is_over
    found = pipes.take()
    assert (found is None) is is_over
    if found is not None:
        pipes.give_back(found)
