"""Streams whose every byte is known by its place, said and heard in pieces of any size. I/O: what it is given."""

from __future__ import annotations

import functools
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import Talk
from tests.scenarios.waiting import eventually

P = ParamSpec("P")
T = TypeVar("T")

_PERIOD = 1_048_573
"""A prime: whatever is lost, doubled or put elsewhere shows at once, unless it is a multiple of just this long."""
_SLICE_BYTES = 64 * 1024
_MOST_AT_ONCE = 256 * 1024


class Content:
    """One stream's bytes; two streams of different seeds have nothing in common."""

    def __init__(self, seed: int) -> None:
        block = random.Random(seed).randbytes(_PERIOD)
        self._twice = memoryview(block + block)

    def part(self, start: int, count: int) -> bytes:
        """Return ``count`` bytes from the place ``start`` on."""
        if count <= _PERIOD:
            return bytes(self._twice[start % _PERIOD : start % _PERIOD + count])
        return b"".join(self.part(at, min(_PERIOD, start + count - at)) for at in range(start, start + count, _PERIOD))


def pieces(total: int, seed: int, most: int = 400_000) -> Iterator[int]:
    """Yield random sizes which make ``total`` together; small ones are as frequent as large ones."""
    dice = random.Random(seed)
    while total:
        size = min(total, int(most ** dice.random()))
        yield size
        total -= size


class End:
    """One end of a link: says one content, hears another, and knows how far it is with each.

    One thread may speak while another one listens. What is heard is compared byte for byte.
    """

    def __init__(self, talk: Talk, says: Content, hears: Content) -> None:
        self.talk = talk
        self.said = 0
        self.heard = 0
        self._says = says
        self._hears = hears
        self._dice = random.Random(0)

    def say(self, *sizes: int) -> None:
        """Say so many bytes more, in pieces of these sizes."""
        for size in sizes:
            self.talk.say(self._says.part(self.said, size))
            self.said += size

    def say_last(self, *sizes: int) -> None:
        """Say so many bytes more, and then no more."""
        self.say(*sizes)
        self.talk.finish()

    def say_in_slices(self, count: int) -> None:
        """Say so many bytes more; whoever looks at ``said`` meanwhile sees how it goes on."""
        self.say(*(min(_SLICE_BYTES, count - start) for start in range(0, count, _SLICE_BYTES)))

    def say_urgently(self, count: int) -> None:
        """Say a few bytes more, the last of which on its way is marked as urgent."""
        self.talk.sock.send(self.talk.seal(self._says.part(self.said, count)), socket.MSG_OOB)
        self.said += count

    def stuff(self, daemon: Daemon) -> None:
        """Say as much as goes while nobody listens, without waiting. The last words may be cut short."""
        waiting = memoryview(b"")
        timeout = self.talk.sock.gettimeout()
        self.talk.sock.setblocking(False)

        def push() -> int:
            nonlocal waiting
            try:
                while True:
                    if not waiting:
                        waiting = memoryview(self.talk.seal(self._says.part(self.said, _SLICE_BYTES)))
                        self.said += _SLICE_BYTES
                    waiting = waiting[self.talk.sock.send(waiting) :]
            except BlockingIOError:
                return self.said - len(waiting)

        wait_until_still(daemon, push)
        self.talk.sock.settimeout(timeout)

    def narrow(self) -> None:
        """Have the kernel keep little of what is on its way at this end."""
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.talk.sock.setsockopt(socket.SOL_SOCKET, option, _MOST_AT_ONCE)

    def hear(self, count: int) -> None:
        """Hear so many bytes more; AssertionError where they are not the next ones of the content."""
        goal = self.heard + count
        while self.heard < goal:
            assert self._hear_some(goal - self.heard), f"the end came after {self.heard} bytes, {goal} were expected"

    def hear_to_the_end(self) -> int:
        """Hear all that comes before the end; return how much that was in all."""
        while self._hear_some(_MOST_AT_ONCE):
            pass
        return self.heard

    def hear_to_the_reset(self) -> int:
        """Hear all that comes before the reset; return how much that was in all. An orderly end fails."""
        try:
            self.hear_to_the_end()
        except ConnectionError:
            return self.heard
        message = f"an end came after {self.heard} bytes, not a reset"
        raise AssertionError(message)

    def _hear_some(self, most: int) -> int:
        piece = self.talk.receive(min(most, 256 + int(_MOST_AT_ONCE ** self._dice.random())))
        if piece != self._hears.part(self.heard, len(piece)):
            self._complain(piece)
        self.heard += len(piece)
        return len(piece)

    def _complain(self, piece: bytes) -> None:
        meant = self._hears.part(self.heard, len(piece))
        wrong = next(at for at in range(len(piece)) if piece[at] != meant[at])
        elsewhere = self._hears.part(0, _PERIOD).find(piece[wrong : wrong + 16])
        message = f"byte {self.heard + wrong} is wrong: what came stands at {elsewhere} of {_PERIOD} of the content"
        raise AssertionError(message)


def ends_of(link: tuple[Talk, Talk], first: str = "client", seed: int = 0) -> tuple[End, End]:
    """Return both ends of a link, the client's first, or the other way round."""
    up, down = _content(2 * seed), _content(2 * seed + 1)
    client, node = End(link[0], up, down), End(link[1], down, up)
    return (client, node) if first == "client" else (node, client)


_content = functools.lru_cache(maxsize=64)(Content)


def background(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Do it in a thread of its own; the result tells what it returned, or raises what it raised."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act(*args, **kwargs))
        except BaseException as error:  # raised again where the result is wanted
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return future


def wait_until_still(daemon: Daemon, progress: Callable[[], int]) -> None:
    """Wait until there is no more progress: a worker does much in the time of a few answers of the admin side."""

    def is_still() -> bool:
        before = progress()
        daemon.get("/healthz")
        daemon.get("/metrics")
        return bool(before) and progress() == before

    eventually(lambda: all(is_still() for _ in range(3)), "nothing moves any more")
