"""The proxies' configs say the same to each: their ports, and what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.certificates import HOST, Files
from bench.peers import catalogue, haproxy, natproxy, nginx, socat, stunnel
from bench.peers.ports import FIRST_PORTS, Door, Setting, port_of, split
from natproxy.config.reading import load_config

CLEAR = Door("clear")
LARGE = Door("large", 1, is_large=True)
TERMINATE = Door("terminate", 2, client_tls=True)
MEMBERS = Door("members", 3, client_tls=True, demands_certificate=True)
RE_ENCRYPT = Door("re-encrypt", 4, "127.0.0.1:7000", client_tls=True, node_tls=True)
DOORS = (CLEAR, LARGE, TERMINATE, MEMBERS, RE_ENCRYPT)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, Files.make(tmp_path), workers=2)


@pytest.mark.parametrize(("is_strict", "ours"), [(False, [CLEAR, LARGE, TERMINATE, RE_ENCRYPT]), (True, [MEMBERS])])
def test_natproxy_takes_its_config(setting: Setting, is_strict: bool, ours: list[Door]) -> None:
    path = setting.directory / "natproxy.yaml"
    text = natproxy.config(DOORS, setting, demands_certificate=is_strict)
    path.write_text(text.replace("{state_dir}", str(setting.directory / "state")), encoding="utf-8")
    config = load_config(path)
    assert config.worker_count == 2
    assert {static.port: str(static.target) for static in config.static} == {
        port_of("natproxy", setting, door): door.target for door in ours
    }


def test_haproxy_has_its_large_doors_in_a_config_of_their_own(setting: Setting) -> None:
    plain, large = (haproxy.config(DOORS, setting, is_large=is_large) for is_large in (False, True))
    assert "tune.bufsize" not in plain
    assert f"tune.bufsize {haproxy.LARGE_BYTES}" in large
    assert [line for line in large.splitlines() if line.startswith("listen")] == ["listen large"]
    assert "listen large" not in plain
    assert "nbthread 2" in plain


def test_haproxy_demands_and_verifies_certificates_where_it_should(setting: Setting) -> None:
    lines = haproxy.config(DOORS, setting, is_large=False).splitlines()
    binds = {lines[at - 1].split()[1]: line for at, line in enumerate(lines) if "bind" in line}
    servers = {lines[at - 2].split()[1]: line for at, line in enumerate(lines) if "server node" in line}
    assert {name for name, line in binds.items() if " ssl " in line} == {"terminate", "members", "re-encrypt"}
    assert {name for name, line in binds.items() if "verify required" in line} == {"members"}
    assert {name for name, line in servers.items() if f"verifyhost {HOST}" in line} == {"re-encrypt"}
    assert servers["re-encrypt"].split()[2] == RE_ENCRYPT.target


def test_nginx_demands_and_verifies_certificates_where_it_should(setting: Setting) -> None:
    text = nginx.config(DOORS, setting, module=Path("/modules/stream.so"))
    servers = {line.split(":")[1].split(";")[0]: line for line in text.splitlines() if "server {" in line}
    assert text.startswith("load_module /modules/stream.so;\n")
    assert "worker_processes 2;" in text
    names = {f"{port_of('nginx', setting, door)}{' ssl' if door.client_tls else ''}": door.name for door in DOORS}
    lines = {names[port]: line for port, line in servers.items()}
    assert {name for name, line in lines.items() if "ssl_verify_client on;" in line} == {"members"}
    assert {name for name, line in lines.items() if "proxy_ssl_verify on;" in line} == {"re-encrypt"}
    assert {name for name, line in lines.items() if "proxy_buffer_size 64k;" in line} == {"large"}


def test_stunnel_has_the_doors_that_it_can_have(setting: Setting) -> None:
    text = stunnel.config(DOORS, setting)
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[terminate]", "[members]"]
    assert text.count("verifyChain = yes") == 1


def test_socat_has_large_buffers_where_asked(setting: Setting) -> None:
    assert socat.command(DOORS, CLEAR, setting)[1:] == [
        f"TCP4-LISTEN:{FIRST_PORTS['socat']},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=1024",
        "TCP4:127.0.0.1:21990,nodelay",
    ]
    assert socat.command(DOORS, LARGE, setting)[1:3] == ["-b", "65536"]


def test_what_is_not_installed_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PROGRAMS", {**catalogue.PROGRAMS, "nginx": "no-such-program"})
    assert catalogue.left_out(["natproxy", "nginx"]) == {"nginx": "not installed: no-such-program"}


def test_an_address_is_split_at_its_last_colon() -> None:
    assert split("127.0.0.1:80") == ("127.0.0.1", 80)
