from __future__ import annotations

from pathlib import Path

import pytest

from natproxy.config import load_config
from natproxy.config.document import PortsView, bad_document, good_document
from natproxy.errors import Problem

MUTUAL = "tls: {certificate: /x.crt, key: /x.key, client_ca: /ca.crt}\n"
COMMON = "clients: {allow: [198.51.100.27/32]}\n"


@pytest.mark.parametrize(
    ("text", "lowest", "highest", "is_capable"),
    [
        ("static: [{name: a, port: 1024, target: 'a:1'}]", 1024, 1024, False),
        ("static: [{name: a, port: 1023, target: 'a:1'}]", 1023, 1023, True),
        ("caches: [{id: a, ports: 900-1100}, {id: b, ports: 7000-7010}]", 900, 7010, True),
        ("caches: [{id: a}]\nlisten: {ports: 6379-6478}", 6379, 6478, False),
        # A pool that no entry takes from is not listened on.
        ("caches: [{id: a, ports: 7000-7001}]\nlisten: {ports: 80-90}", 7000, 7001, False),
        ("static: [{name: a, port: 6490, target: 'a:1'}]\nadmin: {port: 81}", 6490, 6490, True),
        ("admin: {port: 9479}", None, None, False),
        (f"{MUTUAL}portal: {{port: 1023}}", None, None, True),
    ],
)
def test_ports_and_what_they_need(
    tmp_path: Path, text: str, lowest: int | None, highest: int | None, is_capable: bool
) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text(COMMON + text)
    document = good_document(load_config(path))
    assert document.ok
    assert document.ports == PortsView(lowest, highest)
    assert document.needs_bind_capability is is_capable


@pytest.mark.parametrize(
    ("text", "port"), [("", None), ("portal: {}", 6378), ("portal: {port: null}", None), ("portal: {port: 1}", 1)]
)
def test_the_portal_is_told(tmp_path: Path, text: str, port: int | None) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text(COMMON + MUTUAL + text)
    assert good_document(load_config(path)).portal == port


def test_warnings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text(COMMON)
    (warning,) = good_document(load_config(path)).warnings
    assert "nothing to do" in warning


def test_of_a_bad_file_its_problems_are_told_and_no_ports() -> None:
    problem = Problem("natproxy.yaml", 3, "caches[0].ports", "wrong")
    document = bad_document((problem,))
    assert (document.ok, document.problems, document.ports) == (False, (problem,), PortsView())
