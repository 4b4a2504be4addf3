"""What a capture shows, told from bytes that are made here: what is TLS, what is not, and what is missing."""

from __future__ import annotations

import contextlib
import itertools
import ssl
import struct
from collections.abc import Sequence

import pytest

from tests.network.flows import ACK, FIN, SYN, Address, Link, NotTlsError, check_tls_only, segment, tls_records
from tests.standins.certificates import Authority

CLIENT, SERVER = ("198.51.100.27", 40000), ("203.0.113.73", 6379)
NEAR_THE_END = (1 << 32) - 20
"""A sequence number that runs over soon."""
SECRET = b"in the clear"


def frame(source: Address, target: Address, sequence: int, flags: int, payload: bytes = b"", *, size: int = 0) -> bytes:
    ports = struct.pack("!HHIIBBHHH", source[1], target[1], sequence % (1 << 32), 0, 6 << 4, flags, 0, 0, 0)
    tcp = ports + bytes(4) + payload  # an option's worth of bytes
    addresses = b"".join(bytes(map(int, ip.split("."))) for ip, _ in (source, target))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size or 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
    return bytes(12) + b"\x08\x00" + ip + tcp


def spoken(asked: Sequence[tuple[int, bytes]], answered: Sequence[tuple[int, bytes]] = ()) -> Link:
    """Return a link on which one connection says this, each piece at its place."""
    link = Link()
    link.add(frame(CLIENT, SERVER, NEAR_THE_END - 1, SYN))
    link.add(frame(SERVER, CLIENT, 999, SYN | ACK))
    for at, piece in asked:
        link.add(frame(CLIENT, SERVER, NEAR_THE_END + at, ACK, piece))
    for at, piece in answered:
        link.add(frame(SERVER, CLIENT, 1000 + at, ACK, piece))
    return link


@pytest.mark.parametrize(
    "order", list(itertools.permutations([(0, b"abcdef"), (6, b"ghij"), (3, b"defgh"), (10, b"k" * 30)]))
)
def test_bytes_come_to_their_places_whatever_the_order(order: Sequence[tuple[int, bytes]]) -> None:
    (flow,) = spoken(order).flows
    assert flow.asked.is_whole
    assert bytes(flow.asked.data) == b"abcdefghij" + b"k" * 30


def test_a_hole_is_seen() -> None:
    (flow,) = spoken([(0, b"ab"), (3, b"d")]).flows
    assert not flow.asked.is_whole
    with pytest.raises(NotTlsError, match="bytes of the client are missing"):
        check_tls_only([flow], ())


def test_a_second_connection_of_the_same_ports_is_another_one() -> None:
    link = spoken([(0, b"first")])
    link.add(frame(CLIENT, SERVER, NEAR_THE_END - 1, SYN))  # said twice
    link.add(frame(CLIENT, SERVER, 4999, SYN))
    link.add(frame(CLIENT, SERVER, 5000, ACK | FIN, b"second"))
    assert [bytes(flow.asked.data) for flow in link.flows] == [b"first", b"second"]


def test_a_refusal_is_a_connection_without_an_answer() -> None:
    link = Link()
    link.add(frame(CLIENT, SERVER, 1, SYN))
    link.add(frame(SERVER, CLIENT, 0, ACK | 4))
    assert [flow.answered for flow in link.flows] == [None]
    assert check_tls_only(link.flows, ()) == 0


def test_what_had_begun_before_is_not_guessed() -> None:
    with pytest.raises(NotTlsError, match="had begun before"):
        Link().add(frame(CLIENT, SERVER, 1, ACK, b"x"))


def test_what_is_no_tcp_is_strange_but_for_neighbours() -> None:
    link = Link()
    udp = bytearray(frame(CLIENT, SERVER, 1, 0))
    udp[14 + 9] = 17
    neighbours = bytes(12) + b"\x86\xdd" + bytes(6) + bytes([58]) + bytes(33)
    for each in (bytes(udp), bytes(12) + b"\x08\x06" + bytes(28), neighbours):
        link.add(each)
    assert link.strange == [bytes(udp)]


def test_padding_is_no_payload_and_a_large_packet_has_no_size() -> None:
    assert segment(frame(CLIENT, SERVER, 1, ACK, b"x")[14:] + bytes(9)).payload == b"x"
    packet = bytearray(frame(CLIENT, SERVER, 1, ACK, b"y" * 100)[14:])
    packet[2:4] = bytes(2)
    assert segment(bytes(packet)).payload == b"y" * 100


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """What both ends of a TLS connection send; the client says SECRET."""
    authority = Authority("Flows CA")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue("flows", dns=["flows.example"])
    serving.load_cert_chain(*issued.write(tmp_path_factory.mktemp("flows")))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=authority.pem.decode())
    client = context.wrap_bio(to_client, said, server_hostname="flows.example")
    server = serving.wrap_bio(to_server, heard, server_side=True)
    sent, answered = b"", b""
    for act in (client.do_handshake, server.do_handshake, client.do_handshake, server.do_handshake):
        with contextlib.suppress(ssl.SSLWantReadError):
            act()
        if act == client.do_handshake and client.version() is not None:
            client.write(SECRET)
        sent += (passing := said.read())
        to_server.write(passing)
        answered += (passing := heard.read())
        to_client.write(passing)
    assert server.read() == SECRET
    return sent, answered


def test_tls_is_seen_as_tls_and_its_secrets_are_not(conversation: tuple[bytes, bytes]) -> None:
    sent, answered = conversation
    link = spoken([(0, sent)], [(0, answered)])
    assert check_tls_only(link.flows, [SECRET]) >= len(SECRET)
    with pytest.raises(NotTlsError, match=r"flows\.example"):  # the name that is asked for is in the clear
        check_tls_only(link.flows, [b"flows.example"])


def test_a_connection_may_be_cut_anywhere(conversation: tuple[bytes, bytes]) -> None:
    sent, answered = conversation
    for at in range(len(sent)):
        tls_records(sent[:at], "client")
    for at in range(len(answered)):
        tls_records(answered[:at], "server")


@pytest.mark.parametrize("who", ["client", "server"])
def test_what_follows_tls_in_the_clear_is_seen(conversation: tuple[bytes, bytes], who: str) -> None:
    said = conversation[who == "server"]
    with pytest.raises(NotTlsError, match="is no TLS"):
        tls_records(said + b"*1\r\n$4\r\nPING\r\n", who)


@pytest.mark.parametrize(
    "data", [b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff"]
)
def test_other_protocols_are_no_tls(data: bytes) -> None:
    for who in ("client", "server"):
        with pytest.raises(NotTlsError, match="is no TLS"):
            tls_records(data, who)


def test_each_end_begins_as_it_has_to(conversation: tuple[bytes, bytes]) -> None:
    sent, answered = conversation
    alert = b"\x15\x03\x03\x00\x02\x02\x28"
    assert [one.kind for one in tls_records(alert, "server")] == [21]
    for data, who in ((sent, "server"), (answered, "client"), (alert, "client")):
        with pytest.raises(NotTlsError, match=f"the {who} begins with"):
            tls_records(data, who)
