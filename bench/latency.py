"""A small client that times each of its requests to the nanosecond. I/O: asks a node; run as a program, prints JSON.

    python bench/latency.py HOST PORT CLIENTS REQUESTS|SECONDSs [redis|memcached [CA CERTIFICATE KEY]]

redis-benchmark knows times of 8 us and its multiples only, too coarse where an answer takes 60, and no memcached. Each
client asks as soon as it is answered, a GET and a SET in turns. Imports nothing of the bench, to start quickly.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

ASKED = {
    "redis": (b"*2\r\n$3\r\nGET\r\n$7\r\nlatency\r\n", b"*3\r\n$3\r\nSET\r\n$7\r\nlatency\r\n$3\r\nxxx\r\n"),
    "memcached": (b"get latency\r\n", b"set latency 0 0 3\r\nxxx\r\n"),
}
"""Protocol -> GET and SET."""
TAIL = 100
"""One of so many belongs to the slowest, which are all told."""


def percentile(ordered: list[int], share: float) -> int:
    """Return the value that ``share`` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ask(sockets: list[socket.socket], requests: int, until_ns: int, protocol: str = "redis") -> list[int]:
    """Return the nanoseconds of each request; ends after ``requests``, or at ``until_ns`` (time.monotonic_ns)."""
    get, put = ASKED[protocol]
    clock = time.monotonic_ns
    by_fd = {sock.fileno(): sock for sock in sockets}
    asked = dict.fromkeys(by_fd, 0)
    took: list[int] = []
    with select.epoll() as epoll:
        for fd, sock in by_fd.items():
            epoll.register(fd, select.EPOLLIN)
            asked[fd] = clock()
            sock.send(put)
        poll = epoll.poll
        turn = 0
        while len(took) < requests and clock() < until_ns:
            for fd, _ in poll():
                sock = by_fd[fd]
                if not sock.recv(4096):
                    raise ConnectionError("the proxy closed the connection")
                now = clock()
                took.append(now - asked[fd])
                turn += 1
                asked[fd] = clock()
                sock.send(get if turn & 1 else put)
    return took


def secured(sockets: list[socket.socket], host: str, ca: str, certificate: str, key: str) -> list[socket.socket]:
    """Return them with TLS, to a server that is called so and wants a certificate.

    A record is an answer or a session's ticket: whoever reads waits for the answer.
    """
    import ssl  # noqa: PLC0415 (others start sooner without)

    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    return [context.wrap_socket(sock, server_hostname=host) for sock in sockets]


def main(host: str, port: str, clients: str, amount: str, protocol: str = "redis", *tls: str) -> None:
    """Print requests, seconds, and in milliseconds the median, the 99 % request and the slowest percent."""
    sockets = [socket.create_connection((host, int(port)), 5) for _ in range(int(clients))]
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(None)
    if tls:
        sockets = secured(sockets, host, *tls)
    start = time.monotonic_ns()
    if amount.endswith("s"):
        took = ask(sockets, sys.maxsize, start + int(float(amount[:-1]) * 1e9), protocol)
    else:
        took = ask(sockets, int(amount), sys.maxsize, protocol)
    seconds = (time.monotonic_ns() - start) / 1e9
    took.sort()
    found: dict[str, object] = {"requests": len(took), "seconds": seconds}
    found |= {"p50": percentile(took, 0.5) / 1e6, "p99": percentile(took, 0.99) / 1e6}
    found["slowest"] = [one / 1e6 for one in took[-(len(took) // TAIL + 1) :]]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
