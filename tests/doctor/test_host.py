from __future__ import annotations

from natproxy.doctor.findings import Check
from natproxy.doctor.host import host_findings
from tests.plan.samples import config


def test_every_check_of_this_host_says_something_in_its_order() -> None:
    text = (
        "listen: {address: 127.0.0.1}\nadmin: {port: 9480}\nstate_dir: /nonexistent/natproxy\n"
        "static: [{name: legacy, port: 6490, target: '127.0.0.1:1'}]"
    )
    found = [one.check for one in host_findings(config(text), ())]
    order = [Check.PORTS, Check.LEFTOVER_RULES, Check.LIMITS, Check.KEEPALIVE]
    assert list(dict.fromkeys(found)) == order
