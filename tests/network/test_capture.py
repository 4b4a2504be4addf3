"""A capture sees what passes a link as it is: also what is in the clear."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.network.capture import Capture
from tests.network.flows import NotTlsError, check_tls_only
from tests.network.guide import LAPTOP, NAT, PUBLIC_IP, GuideNetwork

pytestmark = pytest.mark.root

PORT = 6379
ASKED = b"*1\r\n$4\r\nPING\r\n" + b"large " * 500_000
ANSWERED = b"+PONG\r\n"


def talk(network: GuideNetwork) -> None:
    """Let a client on the laptop say something to somebody on the NAT instance, in the clear."""
    listener = network.inside(NAT, lambda: socket.create_server((PUBLIC_IP, PORT)))
    with listener, network.connect(LAPTOP, PUBLIC_IP, PORT) as client:
        sending = threading.Thread(target=client.sendall, args=(ASKED,))
        sending.start()
        server, _ = listener.accept()
        with server:
            left = len(ASKED)
            while left:
                left -= len(server.recv(left))
            server.sendall(ANSWERED)
            assert client.recv(100) == ANSWERED
        sending.join()


def test_it_sees_every_byte_of_a_clear_connection(guide_network: GuideNetwork) -> None:
    with Capture(guide_network, LAPTOP, "eth0") as capture:
        talk(guide_network)
        (flow,) = capture.look().flows
        assert {who: bytes(stream.data) for who, stream in flow.streams.items()} == {
            "client": ASKED,
            "server": ANSWERED,
        }
        with pytest.raises(NotTlsError, match="PING"):
            check_tls_only([flow], ())


def test_it_says_so_where_it_could_not_keep_up(guide_network: GuideNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.network.capture.KEPT_BYTES", 1 << 12)
    with Capture(guide_network, LAPTOP, "eth0") as capture:
        talk(guide_network)
        with pytest.raises(RuntimeError, match="packets were dropped"):
            capture.look()
