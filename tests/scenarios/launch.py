"""Starts a command as systemd does: with the descriptors that it keeps, from 3 on. I/O: asks tests.scenarios.systemd.

``python launch.py SOCKET COMMAND...``: what SOCKET answers is the environment, and beside it the descriptors.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys

FIRST = 3
MOST = 250


def main() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(sys.argv[1])
        told, fds, _, _ = socket.recv_fds(asking, 65536, MOST)
    environ = {**os.environ, **json.loads(told)}
    if "LISTEN_PID" in environ:
        environ["LISTEN_PID"] = str(os.getpid() + int(environ["LISTEN_PID"]))
    # Out of the way first: one of them may be where another one belongs.
    out_of_the_way = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST + MOST) for fd in fds]
    os.closerange(FIRST, FIRST + MOST)
    for place, fd in enumerate(out_of_the_way, FIRST):
        os.dup2(fd, place, inheritable=True)
    os.execvpe(sys.argv[2], sys.argv[2:], environ)


if __name__ == "__main__":
    main()
