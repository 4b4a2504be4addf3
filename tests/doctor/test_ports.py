from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.config import Config, load_config
from natproxy.doctor import ports
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.listeners import Holder
from natproxy.doctor.ports import (
    bind_findings,
    configured_ports,
    ephemeral_findings,
    port_findings,
    served_findings,
    taken_findings,
)
from natproxy.documents import CacheView, NodeName, RoutesDocument, RouteView
from natproxy.model import Endpoint, Kind, Mode, Route, RouteKey
from tests.doctor.test_settings import write
from tests.plan.samples import config as sample
from tests.scenarios.daemon import OwnAddress

PORT, OTHER, ADMIN = 6379, 6380, 9479


@pytest.fixture
def ip() -> Iterator[str]:
    own = OwnAddress()
    yield own.ip
    own.close()


def load(folder: Path, ip: str, text: str = "") -> Config:
    path = folder / "natproxy.yaml"
    path.write_text(
        f"listen: {{address: {ip}}}\nadmin: {{address: {ip}, port: {ADMIN}}}\nstate_dir: {folder / 'state'}\n"
        + (text or f"static: [{{name: legacy, port: {PORT}, target: '127.0.0.1:1'}}]")
    )
    return load_config(path)


def route(port: int) -> Route:
    return Route(port, RouteKey("legacy", Kind.STATIC), Endpoint("127.0.0.1", 1), Mode.STATIC)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    assert found[0].check is Check.PORTS
    assert bool(found[0].mend) is (found[0].verdict is not Verdict.GOOD)
    return found[0]


def test_free_ports_are_good_and_free_again(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip)
    found = only(port_findings(config, [route(PORT), route(OTHER)]))
    assert found.verdict is Verdict.GOOD
    assert found.evidence == f"natproxy does not run, and nobody else has its ports: {PORT}-{OTHER}, {ADMIN}"
    socket.create_server((ip, PORT)).close()


def test_a_port_that_another_process_has_is_told_with_its_name(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip)
    with socket.create_server((ip, PORT)):
        found = only(port_findings(config, [route(PORT)]))
    assert (found.subject, found.verdict) == (f"port {PORT}", Verdict.BAD)
    assert f"{ip}:{PORT} is taken by " in found.evidence
    assert f"(pid {os.getpid()})" in found.evidence
    assert f"'sport = :{PORT}'" in found.mend


def test_systemd_may_hold_a_port_for_natproxy_and_others_may_be_out_of_sight() -> None:
    place = ("0.0.0.0", PORT)
    kept = only(taken_findings([(place, Holder("0.0.0.0", 1, "systemd"))]))
    assert (kept.verdict, "list-sockets" in kept.mend) == (Verdict.WARNING, True)
    unseen = only(taken_findings([(place, None)]))
    assert unseen.verdict is Verdict.BAD
    assert "another process, which only root can see" in unseen.evidence


def test_who_has_the_port_of_another_address_is_told_with_that_one() -> None:
    found = only(taken_findings([(("0.0.0.0", PORT), Holder("127.9.9.9", 812, "redis-server"))]))
    assert found.evidence == f"0.0.0.0:{PORT} is taken by redis-server (pid 812), which listens on 127.9.9.9:{PORT}"


def test_another_natproxy_is_one_finding_with_all_its_ports() -> None:
    others = [(("0.0.0.0", port), Holder(ip, 7, "python", is_natproxy=True, config="/a.yaml"))
              for port, ip in ((PORT, "127.0.0.1"), (OTHER, "0.0.0.0"), (ADMIN, "127.0.0.1"))]  # fmt: skip
    found = only(taken_findings(others))
    assert found.subject == f"ports {PORT}-{OTHER}, {ADMIN}"
    assert found.evidence == f"another natproxy runs here with -c /a.yaml (pid 7) and has {found.subject}"
    both = taken_findings([*others, (("0.0.0.0", 1), Holder("0.0.0.0", 8, "x"))])
    assert [one.subject for one in both] == [found.subject, "port 1"]


def test_the_admin_side_s_port_counts_too(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip)
    with socket.create_server((ip, ADMIN)):
        assert only(bind_findings(config, [route(PORT)])).subject == f"port {ADMIN}"


def test_the_portal_s_port_counts_too(tmp_path: Path, ip: str) -> None:
    text = "tls: {certificate: /c, key: /k, client_ca: /ca}\nportal: {port: 6378}\n"
    with socket.create_server((ip, 6378)):
        found = only(bind_findings(load(tmp_path, ip, text), []))
    assert (found.subject, found.verdict) == ("port 6378", Verdict.BAD)
    assert 6378 in configured_ports(load(tmp_path, ip, text))


def test_a_connection_that_just_ended_does_not_take_its_port(tmp_path: Path, ip: str) -> None:
    with socket.create_server((ip, PORT)) as sock, socket.create_connection((ip, PORT)) as client:
        sock.accept()[0].close()  # the side that closes first keeps TIME_WAIT
        assert client.recv(1) == b""
    assert only(bind_findings(load(tmp_path, ip), [route(PORT)])).verdict is Verdict.GOOD


def test_an_address_that_is_not_this_host_s() -> None:
    config = sample(
        "listen: {address: 203.0.113.73}\nclients: {allow: 10.0.0.0/8}\n"
        f"static: [{{name: legacy, port: {PORT}, target: '127.0.0.1:1'}}]"
    )
    found = bind_findings(config, [route(PORT)])[0]
    assert (found.evidence, found.verdict) == ("203.0.113.73 is no address of this host", Verdict.BAD)
    assert "listen.address" in found.mend


def test_without_known_routes_every_port_of_the_config_is_tried(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip, "caches: [{id: my-redis, ports: 6379-6381}]")
    assert sorted(configured_ports(config)) == [6379, 6380, 6381, ADMIN]
    with socket.create_server((ip, 6381)):
        assert only(bind_findings(config, [])).subject == "port 6381"


def test_low_ports_need_a_capability(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip, "static: [{name: legacy, port: 637, target: '127.0.0.1:1'}]")
    found = [one for one in port_findings(config, [route(637)]) if one.subject == "low ports"]
    assert only(found).verdict is Verdict.WARNING
    assert "CAP_NET_BIND_SERVICE" in found[0].mend


def test_a_control_socket_that_cannot_be_asked_is_no_verdict(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip)
    config.state_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(config.state_dir / "control.sock"))
        sock.listen()

        def hang_up() -> None:
            sock.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found = only(port_findings(config, [route(PORT)]))
        thread.join()
    assert found.verdict is Verdict.UNKNOWN


def view(port: int | None, state: str = "open", reason: str | None = None) -> RouteView:
    return RouteView(port=port, kind="node", node=NodeName("my-redis-001", "0001"), state=state, reason=reason)


def document(*routes: RouteView) -> RoutesDocument:
    return RoutesDocument(generated="", caches=(CacheView(id="my-redis", routes=routes),))


def test_the_running_natproxy_s_own_ports_are_good_whatever_their_nodes_do() -> None:
    found = only(served_findings(document(view(6379), view(6380, "unreachable", "no answer")), []))
    assert (found.subject, found.verdict) == ("my-redis", Verdict.GOOD)
    assert found.evidence == "natproxy runs and listens on 6379-6380"


def test_a_port_that_it_could_not_open_is_told_with_its_reason() -> None:
    found = only(served_findings(document(view(6379, "error", "Address already in use")), []))
    assert (found.subject, found.verdict) == ("my-redis-001/0001", Verdict.BAD)
    assert found.evidence == "port 6379 is not open: Address already in use"
    nowhere = only(served_findings(document(view(None, "error", "no port is left for it")), []))
    assert nowhere.evidence == "it has no port: no port is left for it"


def test_a_route_of_the_config_that_it_does_not_serve() -> None:
    found = served_findings(document(view(6379)), [route(6379), route(6490)])
    assert [one.verdict for one in found] == [Verdict.GOOD, Verdict.WARNING]
    assert found[1].evidence == "natproxy runs, and does not serve port 6490"
    assert "natproxy reload" in found[1].mend


def test_ports_that_the_kernel_may_hand_out(tmp_path: Path, ip: str) -> None:
    config = load(tmp_path, ip, "caches: [{id: my-redis, ports: 32766-32770}]")
    system = tmp_path / "sys"
    write(system, "net.ipv4.ip_local_port_range", "32768\t60999\n")
    write(system, "net.ipv4.ip_local_reserved_ports", "32770,40000\n")
    found = only(ephemeral_findings(config, system))
    assert found.verdict is Verdict.WARNING
    assert found.evidence.startswith("32768-32769: ")
    assert "ip_local_reserved_ports = 32768-32770,40000" in found.mend
    write(system, "net.ipv4.ip_local_reserved_ports", "32766-32770\n")
    assert ephemeral_findings(config, system) == []


def test_a_port_that_only_this_user_may_not_open_is_not_known(
    tmp_path: Path, ip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ports, "_bind", refuse)
    config = load(tmp_path, ip, "static: [{name: legacy, port: 637, target: '127.0.0.1:1'}]")
    for uid, verdict in ((0, Verdict.BAD), (1000, Verdict.UNKNOWN)):
        monkeypatch.setattr("os.geteuid", lambda uid=uid: uid)
        assert {one.verdict for one in bind_findings(config, [route(637)])} == {verdict}
