from __future__ import annotations

from pathlib import Path

from natproxy.doctor.settings import mend, read_number, read_spans, read_text


def write(system: Path, name: str, text: str) -> None:
    path = system / name.replace(".", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_numbers_and_ports(tmp_path: Path) -> None:
    write(tmp_path, "net.core.somaxconn", "4096\n")
    write(tmp_path, "net.ipv4.ip_local_port_range", "32768\t60999\n")
    write(tmp_path, "net.ipv4.ip_local_reserved_ports", "6379-6388,9479\n")
    write(tmp_path, "net.ipv4.empty", "\n")
    assert read_number("net.core.somaxconn", tmp_path) == 4096
    assert read_number("net.ipv4.ip_local_port_range", tmp_path) is None
    assert read_number("net.missing", tmp_path) is None
    assert read_spans("net.ipv4.ip_local_port_range", tmp_path) == ((32768, 60999),)
    assert read_spans("net.ipv4.ip_local_reserved_ports", tmp_path) == ((6379, 6388), (9479, 9479))
    assert read_spans("net.ipv4.empty", tmp_path) == ()
    assert read_spans("net.missing", tmp_path) == ()


def test_this_kernel_s_own() -> None:
    assert read_text("kernel.ostype") == "Linux"


def test_the_mend_keeps_it_over_a_restart() -> None:
    assert "'net.core.somaxconn = 4096'" in mend("net.core.somaxconn", 4096)
    assert "/etc/sysctl.d/" in mend("net.core.somaxconn", 4096)
