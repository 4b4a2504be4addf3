"""The AWS stand-in, and DNS for its world, as a process of their own: for network namespaces. I/O: stdout, signals.

    python -m tests.standins.aws --port 4566 --dns 127.0.5.53:53 --control /tmp/aws.sock \\
        --do '{"do": "add_replication_group", "group_id": "my-redis", "addresses": ["10.0.1.230", "10.0.1.231"], ...}'

Prints one line of JSON when it is ready: {"endpoint_url", "environ", "instance_environ", "dns"}; ends at SIGTERM,
SIGINT, or when its standard input is closed (with ``--until-eof``). Besides the actions of control.py it knows
``dns_fail`` (name, fault), ``dns_heal`` (name), ``dns_queries`` (name), ``dns_wait_for`` (name, count).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable

from tests.standins.aws.control import ask_control
from tests.standins.aws.server import AwsServer
from tests.standins.aws.world import AwsWorld
from tests.standins.dns import DnsServer


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    world = AwsWorld(region=options.region, ttl_seconds=options.ttl)
    aws = AwsServer(
        world, address=options.address, port=options.port, page_size=options.page_size, control_path=options.control
    )
    with contextlib.ExitStack() as stack:
        ready: dict[str, object] = {}
        if options.dns:
            address, _, port = options.dns.rpartition(":")
            dns = stack.enter_context(DnsServer(world.zone, address, int(port)))
            aws.actions.update(_dns_actions(dns))
            ready["dns"] = dns.where
        stack.enter_context(aws)
        for order in options.do:
            ask_control(aws.endpoint_url, **json.loads(order))
        ready |= {
            "endpoint_url": aws.endpoint_url,
            "environ": aws.environ,
            "instance_environ": aws.instance_environ,
        }
        ended = _end_event(until_eof=options.until_eof)
        print(json.dumps(ready), flush=True)
        ended.wait()
    return 0


def _dns_actions(dns: DnsServer) -> dict[str, Callable[..., object]]:
    return {
        "dns_fail": dns.fail,
        "dns_heal": dns.heal,
        "dns_queries": dns.queries,
        "dns_wait_for": dns.wait_for,
        "dns_put": dns.zone.put,
    }


def _end_event(*, until_eof: bool) -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if until_eof:

        def watch() -> None:
            sys.stdin.read()
            ended.set()

        threading.Thread(target=watch, name="stdin", daemon=True).start()
    return ended


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.standins.aws", description="AWS as natproxy sees it.")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--page-size", type=int, default=3)
    parser.add_argument("--ttl", type=int, default=15, help="of the names, in seconds")
    parser.add_argument("--dns", metavar="IP:PORT", help="serve the world's names there")
    parser.add_argument("--control", metavar="PATH", help="also take control requests on this Unix socket")
    parser.add_argument("--do", metavar="JSON", action="append", default=[], help="an action to start with")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input is closed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
