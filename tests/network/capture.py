"""Everything that passes one interface of a namespace, from now on. I/O: a packet socket, as root.

    with Capture(network, LAPTOP, "eth0") as capture:
        ...
        check_tls_only(capture.look().flows, [b"a secret"])

The kernel keeps the packets until somebody looks; a look fails where it could not keep all.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tests.network.flows import Link
from tests.network.guide import GuideNetwork

ALL_PROTOCOLS = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
KEPT_BYTES = 128 << 20
FRAME_BYTES = 1 << 17
"""Segmentation is left to the card, which a cable between namespaces has none of: packets are up to 64 KiB long."""


class Capture:
    """One interface."""

    def __init__(self, network: GuideNetwork, label: str, interface: str) -> None:
        self._socket = network.inside(label, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, KEPT_BYTES)
        self._socket.bind((interface, ALL_PROTOCOLS))
        self._socket.setblocking(False)
        self._link = Link()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def look(self) -> Link:
        """Return all that has passed so far."""
        frames = list(self._frames())
        _, dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        if dropped:
            message = f"{dropped} packets were dropped"
            raise RuntimeError(message)
        for frame in frames:
            self._link.add(frame)
        return self._link

    def _frames(self) -> Iterator[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self._socket.recv(FRAME_BYTES)
