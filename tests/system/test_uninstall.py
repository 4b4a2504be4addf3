"""The role takes natproxy away again. The last file of all: nothing is left of what the others need."""

from __future__ import annotations

from tests.system.service import STATE_DIRECTORY
from tests.system.site import Site, seen


def test_removed_it_leaves_its_ports_where_that_is_asked_for_and_else_nothing(site: Site) -> None:
    machine, gone = site.machine, {**site.variables, "natproxy_state": "absent"}
    site.operator.play({**gone, "natproxy_keep_state": True}).succeeded()
    assert machine.exists(f"{STATE_DIRECTORY}/state.json")
    assert not machine.exists("/opt/natproxy")
    assert machine.attempt("systemctl", "cat", "natproxy.service").returncode != 0

    site.operator.play(gone).succeeded()
    left = seen(machine)
    assert sorted(left.files ^ site.first.bare.files) == []
    assert left.accounts == site.first.bare.accounts
    assert site.operator.play(gone).succeeded().changed == []
