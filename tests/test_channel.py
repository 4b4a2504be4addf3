"""Messages and the sockets beside them, over a real socket pair."""

from __future__ import annotations

import array
import os
import resource
import select
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy import channel as channel_module
from natproxy import messages
from natproxy.channel import MAX_FRAME_BYTES, Channel, controller_end, worker_end
from natproxy.errors import ChannelError

END = messages.End(6379, ("10.0.1.230", 6379), 30.0, "node-gone")


@pytest.fixture
def pair() -> Iterator[tuple[Channel[messages.Up], Channel[messages.Down]]]:
    """Yield (the controller's end, the worker's end)."""
    ours, theirs = socket.socketpair()
    controller, worker = controller_end(ours), worker_end(theirs)
    yield controller, worker
    controller.close()
    worker.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Channel[messages.Down]]]:
    """Yield (a bare socket, the worker's end behind it)."""
    ours, theirs = socket.socketpair()
    worker = worker_end(theirs)
    yield ours, worker
    ours.close()
    worker.close()


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Yield descriptors of pipes that can be told from one another; whatever else is opened must be closed."""
    before = descriptors()
    pipes = [os.pipe() for _ in range(4)]
    yield [reading for reading, _ in pipes]
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)
    assert descriptors() == before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def serve(port: int, sockets: int = 0) -> messages.Serve:
    return messages.Serve(
        port=port,
        cache="shop",
        kind="node",
        node="shop-001/0001",
        addresses=(("10.0.1.230", 6379), ("2001:db8::1", 6379)),
        rotates=True,
        allow=("198.51.100.27/32",),
        connect_seconds=3.0,
        idle_seconds=None,
        keepalive_seconds=30.0,
        sockets=sockets,
    )


def frame(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


def is_same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


# Every message comes through.

_COUNT = st.integers(0, 2**53)
_PORT = st.integers(1, 65535)
_SECONDS = st.floats(0, 1e9)
_TEXT = st.text(max_size=20)
_ADDRESS = st.tuples(_TEXT, _PORT)
_PEM = st.binary(max_size=40)
_NAMES = st.none() | st.lists(_TEXT, max_size=3).map(tuple)
_MESSAGES: dict[type[messages.Down | messages.Up], st.SearchStrategy[messages.Down | messages.Up]] = {
    messages.Tls: st.builds(
        messages.Tls,
        server=st.none()
        | st.builds(
            messages.ServerTls,
            certificate=_PEM,
            key=_PEM,
            client_ca=st.none() | _PEM,
            crl=st.none() | _PEM,
            min_version=st.sampled_from(["1.2", "1.3"]),
        ),
        node_cas=st.dictionaries(_TEXT, _PEM, max_size=3),
    ),
    messages.Serve: st.builds(
        messages.Serve,
        port=_PORT,
        cache=_TEXT,
        kind=_TEXT,
        node=_TEXT,
        addresses=st.lists(_ADDRESS, max_size=3).map(tuple),
        rotates=st.booleans(),
        allow=_NAMES,
        connect_seconds=_SECONDS,
        idle_seconds=st.none() | _SECONDS,
        keepalive_seconds=_SECONDS,
        refuse=st.none() | _TEXT,
        limit_group=_TEXT,
        max_connections=_COUNT,
        max_connections_per_client=_COUNT,
        client_tls=_TEXT,
        certificates=_NAMES,
        node_tls=st.booleans(),
        node_ca=_TEXT,
        names=st.lists(_TEXT, max_size=3).map(tuple),
        handshake_seconds=_SECONDS,
        sniffs=st.booleans(),
        rewrite=_TEXT,
        book=_TEXT,
    ),
    messages.Book: st.builds(
        messages.Book,
        name=_TEXT,
        ports=st.lists(st.tuples(_TEXT, _PORT, _PORT), max_size=3).map(tuple),
        public_host=_TEXT,
        public_ip=_TEXT,
        version=_COUNT,
    ),
    messages.Unserve: st.builds(messages.Unserve, _PORT, _TEXT),
    messages.End: st.builds(messages.End, _PORT, st.none() | _ADDRESS, st.none() | _SECONDS, _TEXT),
    messages.Policy: st.builds(messages.Policy, st.booleans()),
    messages.Stop: st.builds(messages.Stop, _SECONDS),
    messages.Ready: st.builds(messages.Ready, _COUNT),
    messages.Counts: st.builds(
        messages.Counts,
        open=_COUNT,
        routes=st.lists(
            st.builds(
                messages.RouteCounts,
                port=_PORT,
                open=_COUNT,
                opened=_COUNT,
                ended=st.dictionaries(_TEXT, _COUNT, max_size=3),
                client_bytes=_COUNT,
                node_bytes=_COUNT,
                dials=st.lists(_COUNT, max_size=14).map(tuple),
                dial_seconds=_SECONDS,
                live=st.lists(st.tuples(_TEXT, _PORT, _COUNT), max_size=3).map(tuple),
                client_handshakes=st.dictionaries(_TEXT, _COUNT, max_size=3),
                node_handshakes=st.dictionaries(_TEXT, _COUNT, max_size=3),
                rewritten=st.dictionaries(_TEXT, _COUNT, max_size=3),
                fallbacks=st.dictionaries(_TEXT, _COUNT, max_size=3),
            ),
            max_size=3,
        ).map(tuple),
        accept_pauses=_COUNT,
        dropped_logs=_COUNT,
        sessions=st.lists(st.tuples(_TEXT, _TEXT, _TEXT, st.booleans(), _COUNT), max_size=3).map(tuple),
    ),
    messages.Finished: st.builds(
        messages.Finished,
        st.lists(
            st.builds(
                messages.FinishedConnection,
                port=_PORT,
                cache=_TEXT,
                kind=_TEXT,
                node=_TEXT,
                client=_TEXT,
                address=_TEXT,
                client_bytes=_COUNT,
                node_bytes=_COUNT,
                seconds=_SECONDS,
                outcome=_TEXT,
                detail=_TEXT,
                certificate=_TEXT,
                serial=_TEXT,
                client_tls=_TEXT,
                node_tls=_TEXT,
            ),
            max_size=3,
        ).map(tuple),
    ),
    messages.DialFailed: st.builds(messages.DialFailed, _PORT, _TEXT, _TEXT),
    messages.DialRecovered: st.builds(messages.DialRecovered, _PORT),
    messages.Hint: st.builds(messages.Hint, _PORT, _TEXT),
    messages.Learnt: st.builds(messages.Learnt, _TEXT, st.lists(st.tuples(_TEXT, _PORT, _TEXT), max_size=3).map(tuple)),
    messages.Stopped: st.builds(messages.Stopped),
}


def test_every_kind_of_message_is_tried() -> None:
    assert set(_MESSAGES) == {*messages.Down.__args__, *messages.Up.__args__}


@pytest.mark.parametrize("kind", list(_MESSAGES), ids=lambda kind: kind.__name__)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_message_comes_through_as_it_was_sent(
    kind: type[messages.Down | messages.Up], data: st.DataObject
) -> None:
    sent = data.draw(st.lists(_MESSAGES[kind], min_size=1, max_size=5))
    ours, theirs = socket.socketpair()
    sender = worker_end(ours)
    receiver: Channel[messages.Down] | Channel[messages.Up]
    receiver = worker_end(theirs) if kind in messages.Down.__args__ else controller_end(theirs)
    try:
        for message in sent:
            sender.send(message)
        assert [(message, fds) for message, fds in receiver.receive()] == [(message, []) for message in sent]
    finally:
        sender.close()
        receiver.close()


# Framing.


def test_frames_that_arrive_byte_by_byte_are_put_together(raw: tuple[socket.socket, Channel[messages.Down]]) -> None:
    sock, worker = raw
    received = []
    for number in frame(END) + frame(messages.Stop(1.5)):
        sock.send(bytes([number]))
        received += worker.receive()
    assert received == [(END, []), (messages.Stop(1.5), [])]
    assert worker.receive() == []


def test_a_receiver_may_take_little_at_once(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], files: list[int]
) -> None:
    controller, worker = pair
    for number, fd in enumerate(files):
        controller.send(serve(number, sockets=1), [fd])
    came: list[list[int]] = []
    for _ in range(3):
        received = worker.receive(2)
        came.append([message.port for message, _ in received if isinstance(message, messages.Serve)])
        for _, fds in received:
            os.close(fds[0])
    assert came == [[0, 1], [2, 3], []]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=20))
def test_frames_are_put_together_however_they_were_cut(cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    worker = worker_end(theirs)
    data = b"".join(frame(messages.Stop(float(number))) for number in range(20))
    received = []
    with ours:
        for cut in (*cuts, len(data)):
            ours.send(data[:cut])
            data = data[cut:]
            received += worker.receive()
    worker.close()
    assert received == [(messages.Stop(float(number)), []) for number in range(20)]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\0",
        b"\0\0\0\x01\xc1",
        frame({"type": "Nothing"}),
        frame({"type": "Stop"}),
        frame({"type": "Stop", "seconds": "soon"}),
        frame({"type": "Unserve", "port": 1, "outcome": "gone"}).replace(b"\xa4gone", b"\xa4\xff\xff\xff\xff"),
        frame(messages.Ready(1)),
        frame(serve(1, sockets=1)),
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
    ],
)
def test_what_is_not_a_message_breaks_the_channel(
    raw: tuple[socket.socket, Channel[messages.Down]], nonsense: bytes
) -> None:
    sock, worker = raw
    sock.send(nonsense)
    with pytest.raises(ChannelError):
        worker.receive()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair()
    worker = worker_end(theirs)
    with ours:
        ours.send(len(nonsense).to_bytes(4, "big") + nonsense)
        try:
            messages_and_fds = worker.receive()
        except ChannelError:
            messages_and_fds = []
        assert len(messages_and_fds) <= 1
    worker.close()


def test_a_message_too_long_is_not_sent(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, worker = pair
    monkeypatch.setattr(channel_module, "MAX_FRAME_BYTES", 100)
    with pytest.raises(ChannelError, match="too long"):
        controller.send(messages.Unserve(1, "x" * 100))
    controller.send(messages.Stop(1.0))
    assert worker.receive() == [(messages.Stop(1.0), [])]


# Waiting.


def test_what_the_kernel_does_not_take_waits_and_goes_on(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]],
) -> None:
    controller, worker = pair
    sent: list[messages.Unserve] = []
    while not controller.waiting_bytes or len(sent) < 50:
        sent.append(messages.Unserve(len(sent), "x" * 10_000))
        controller.send(sent[-1])
    waiting = [controller.waiting_bytes]
    received = []
    while controller.wants_write:
        received += worker.receive()
        controller.flush()
        waiting.append(controller.waiting_bytes)
    received += worker.receive()
    assert [message for message, _ in received] == sent
    assert waiting[0] > 0
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[-1] == 0


def test_a_long_message_arrives_in_parts(pair: tuple[Channel[messages.Up], Channel[messages.Down]]) -> None:
    controller, worker = pair
    long = messages.Unserve(1, "x" * 3_000_000)
    controller.send(long)
    assert controller.wants_write
    received = worker.receive()
    assert received == []
    while not received:
        select.select([], [controller], [], 1)
        controller.flush()
        received = worker.receive()
    assert received == [(long, [])]


# Descriptors.


def test_descriptors_arrive_with_their_message(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], files: list[int]
) -> None:
    controller, worker = pair
    controller.send(serve(1, 2), files[:2])
    controller.send(messages.Policy(log_connections=True))
    controller.send(serve(2, 0))
    controller.send(serve(3, 1), files[2:3])
    received = worker.receive()
    assert [len(fds) for _, fds in received] == [2, 0, 0, 1]
    arrived = [fd for _, fds in received for fd in fds]
    assert all(is_same_file(*both) for both in zip(arrived, files, strict=False))
    assert not any(os.get_inheritable(fd) for fd in arrived)
    for fd in arrived:
        os.close(fd)


def test_descriptors_arrive_with_a_message_that_had_to_wait(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], files: list[int]
) -> None:
    controller, worker = pair
    controller.send(messages.Unserve(1, "x" * 3_000_000))
    ours = os.dup(files[0])
    controller.send(serve(2, 1), [ours])
    os.close(ours)  # the sender's own copy is its own affair
    received: list[tuple[messages.Down, list[int]]] = []
    while len(received) < 2:
        controller.flush()
        received += worker.receive()
    ((fd,),) = (fds for message, fds in received if isinstance(message, messages.Serve))
    assert is_same_file(fd, files[0])
    os.close(fd)


def test_many_messages_with_descriptors_keep_them_apart(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], files: list[int]
) -> None:
    controller, worker = pair
    received: list[tuple[messages.Down, list[int]]] = []
    for number in range(200):
        controller.send(serve(number + 1, 1), [files[number % 4]])
        if number % 7 == 0:
            received += worker.receive()
    while len(received) < 200:
        controller.flush()
        received += worker.receive()
    for number, (message, fds) in enumerate(received):
        assert isinstance(message, messages.Serve)
        assert message.port == number + 1
        assert is_same_file(fds[0], files[number % 4])
        os.close(fds[0])


def test_as_many_descriptors_as_fit_one_message_do(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], files: list[int]
) -> None:
    controller, worker = pair
    controller.send(serve(1, 250), [files[0]] * 250)
    ((_, fds),) = worker.receive()
    assert len(fds) == 250
    for fd in fds:
        os.close(fd)
    with pytest.raises(ChannelError, match="251 descriptors"):
        controller.send(serve(1, 251), [files[0]] * 251)
    assert not controller.wants_write


def test_a_descriptor_that_cannot_be_passed_on_breaks_nothing(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]], files: list[int]
) -> None:
    controller, worker = pair
    with pytest.raises(ChannelError, match="cannot be passed on"):
        controller.send(serve(1, 2), [files[0], 1_000_000])
    controller.send(serve(2, 1), files[:1])
    ((message, fds),) = worker.receive()
    assert message == serve(2, 1)
    os.close(fds[0])


def test_descriptors_for_which_there_is_no_room_break_the_channel(files: list[int]) -> None:
    """The next message's would be taken for them."""
    ours, theirs = socket.socketpair()
    controller, worker = controller_end(ours), worker_end(theirs)
    controller.send(serve(1, 2), files[:2])
    controller.send(serve(2, 2), files[2:])
    used = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208
    free = [number for number in range(max(used) + 10) if number not in used]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[1], hard))
    try:
        with pytest.raises(ChannelError, match="no descriptors left"):
            worker.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    controller.close()
    worker.close()


def test_descriptors_that_never_reach_their_owner_are_closed(files: list[int]) -> None:
    ours, theirs = socket.socketpair()
    controller, worker = controller_end(ours), worker_end(theirs)
    # Sent, and read only in part.
    body = frame(serve(1, 1))
    ours.sendmsg([body[:10]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files[:1]))])
    assert worker.receive() == []
    # Not sent yet.
    controller.send(messages.Unserve(1, "x" * 3_000_000))
    controller.send(serve(2, 1), files[1:2])
    controller.close()
    worker.close()


def test_descriptors_of_messages_before_nonsense_are_closed(files: list[int]) -> None:
    ours, theirs = socket.socketpair()
    controller, worker = controller_end(ours), worker_end(theirs)
    controller.send(serve(1, 1), files[:1])
    ours.send(b"\0\0\0\x01\xc1")
    with pytest.raises(ChannelError):
        worker.receive()
    controller.close()
    worker.close()


# The other side's end.


def test_an_end_is_told_after_what_came_before_it(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]],
) -> None:
    controller, worker = pair
    worker.send(messages.Counts(0, ()))
    worker.send(messages.Stopped())
    worker.close()
    assert controller.receive() == [(messages.Counts(0, ()), []), (messages.Stopped(), [])]
    for _ in range(2):
        with pytest.raises(ChannelError, match="closed the channel"):
            controller.receive()


def test_an_end_in_the_middle_of_a_message_is_an_end(raw: tuple[socket.socket, Channel[messages.Down]]) -> None:
    sock, worker = raw
    sock.send(frame(END)[:-1])
    sock.close()
    with pytest.raises(ChannelError, match="closed the channel"):
        worker.receive()


def test_a_side_that_went_without_reading_is_noticed_too(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]],
) -> None:
    controller, worker = pair
    controller.send(messages.Stop(1.0))
    worker.send(messages.Stopped())
    worker.close()  # with the Stop unread: the kernel calls that a reset
    assert controller.receive() == [(messages.Stopped(), [])]
    with pytest.raises(ChannelError, match="gone"):
        controller.receive()


def test_telling_a_side_that_is_gone_is_an_error(
    pair: tuple[Channel[messages.Up], Channel[messages.Down]],
) -> None:
    controller, worker = pair
    worker.close()
    with pytest.raises(ChannelError, match="gone"):
        controller.send(messages.Stop(1.0))
