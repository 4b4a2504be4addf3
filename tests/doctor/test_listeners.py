from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from natproxy.control import SOCKET_NAME
from natproxy.doctor.listeners import Holder, Listener, config_of, daemon_pid, descriptor_limit, holder, listeners

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:18EC 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx rx tr tm rt uid timeout inode
   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 815 1 0 100 0 0 10 0
"""

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the kernel's own byte order")


@little_endian
def test_what_the_kernel_lists(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    assert listeners(tmp_path) == [Listener("127.0.0.1", 6379, 4711), Listener("::1", 22, 815)]


def test_this_process_is_found_by_its_port() -> None:
    name = Path("/proc/self/comm").read_text().strip()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        own = Holder("127.0.0.1", os.getpid(), name)
        assert holder("127.0.0.1", port) == own
        assert str(own) == f"{name} (pid {os.getpid()})"
        assert holder("0.0.0.0", port) == own
        assert holder("::", port) == own
        assert holder("127.0.0.2", port) is None
        assert holder("::1", port) is None
    assert holder("127.0.0.1", port) is None


def test_who_has_the_very_address_comes_before_who_has_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)), socket.create_server(("::1", port), family=socket.AF_INET6):
            for ip in ("127.0.0.1", "127.0.0.2", "::1"):
                found = holder(ip, port)
                assert found is not None
                assert found.ip == ip
            for ip, family in (("0.0.0.0", "127.0.0."), ("::", "::1")):
                found = holder(ip, port)
                assert found is not None
                assert found.ip.startswith(family)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "/opt/natproxy/bin/python /opt/natproxy/bin/natproxy run -c /etc/natproxy/config.yaml",
            "/etc/natproxy/config.yaml",
        ),
        ("python3 -W error -m natproxy run --config=a.yaml", "a.yaml"),
        ("natproxy run --config a.yaml", "a.yaml"),
        ("natproxy run", ""),
        ("natproxy run -c", ""),
        ("natproxy routes -c a.yaml", None),
        ("python -m natproxy.worker run", None),
        ("redis-server *:6379", None),
        ("vim a b c natproxy run", None),
    ],
)
def test_a_command_line_of_natproxy_s(line: str, found: str | None) -> None:
    assert config_of(line.split()) == found


@little_endian
def test_the_process_that_is_a_natproxy_is_known_with_its_config(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    for pid, line in (("4", "python\0-m\0natproxy.worker\0"), ("7", "python\0-m\0natproxy\0run\0-c\0a.yaml\0")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "fd" / "3").symlink_to("socket:[4711]")
        (tmp_path / pid / "cmdline").write_text(line)
        (tmp_path / pid / "cwd").symlink_to("/srv")
    assert holder("127.0.0.1", 6379, tmp_path) == Holder("127.0.0.1", 7, "", is_natproxy=True, config="/srv/a.yaml")


def test_who_listens_on_all_addresses_has_the_port_of_each() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        found = holder("127.0.0.1", sock.getsockname()[1])
        assert found is not None
        assert (found.ip, found.pid) == ("::", os.getpid())


def test_the_daemon_is_known_by_its_control_socket(tmp_path: Path) -> None:
    assert daemon_pid(tmp_path) is None
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / SOCKET_NAME))
        assert daemon_pid(tmp_path) is None
        sock.listen()
        assert daemon_pid(tmp_path) == os.getpid()


def test_how_many_descriptors_a_process_may_have(tmp_path: Path) -> None:
    assert descriptor_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert descriptor_limit(1, tmp_path) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "limits").write_text(
        "Max open files            unlimited            unlimited            files\n"
    )
    assert descriptor_limit(1, tmp_path) is None
