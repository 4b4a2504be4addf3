"""The story: discovery, a replacement, a failover, a growth, and what a client notices of each. I/O: the terminal.

Each chapter lets something happen to the caches and then only watches: natproxy has to find out by itself. A chapter
that is not over within HEALING_SECONDS raises NotHealedError; the story goes on, and ends badly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.demo.client import HOST, KEY, Client, ClusterCounter, MemcachedCounter, RedisCounter, RedisReader
from tests.demo.processes import ROOT
from tests.demo.stage import DEVELOPER, MEMCACHED_ID, REDIS_ID, SERVERLESS_ID, STATIC_NAME, Natproxy, Stage
from tests.demo.words import Line, sentence

HEALING_SECONDS = 30.0
READING_SECONDS = 3.0
"""Between two chapters, where somebody reads along."""
UNTOLD = ("connection ended", "natproxy runs", "node added")
"""Events that the chapters leave out."""
TITLE = "natproxy, a demonstration"
CHAPTERS = (
    "1. Discovery",
    "2. A node is replaced",
    "3. The primary fails",
    "4. The cache grows",
    "5. A cluster client",
    "6. On a laptop",
)


class NotHealedError(Exception):
    """What happened was not followed in time."""


class Story:
    """One telling. ``tell`` returns whether all ended well; then ``stay`` leaves everything to the reader."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self._stage = stage
        self._cloud = stage.cloud
        self._console = console
        self._told: set[str] = set()
        self._natproxy: Natproxy

    def tell(self) -> bool:
        """Tell all chapters. Raises StopAskedError."""
        self._introduce()
        is_good = True
        chapters = (self._discover, self._replace, self._fail_over, self._grow, self._rewrite, self._connect)
        for title, chapter in zip(CHAPTERS, chapters, strict=True):
            self._console.rule(Text(title, "bold"), align="left")
            self._told.clear()
            try:
                chapter()
            except NotHealedError as error:
                self._say("FAILED", str(error), "bold red")
                is_good = False
            if not self._natproxy.is_running:
                break
            self._stage.signals.wait_until(lambda: not self._console.is_terminal, READING_SECONDS)
        self._sum_up(is_good=is_good)
        return is_good

    # The chapters

    def _introduce(self) -> None:
        real = [self._cloud.server(node).is_real for node in (f"{REDIS_ID}-001", MEMCACHED_ID)]
        redis = "redis-server" if real[0] else "fakeredis (redis-server is not installed)"
        memcached = "memcached" if real[1] else "a small memcached in Python (memcached is not installed)"
        self._console.print(Text(f"{TITLE}: under a minute; nothing leaves this machine", "bold"))
        self._say("AWS", "a stand-in that speaks its protocols, for boto3 and for DNS")
        self._say("caches", f"{redis}, {memcached}; each on a loopback address of its own")
        self._say("natproxy", f"the real one, on {HOST}")

    def _discover(self) -> None:
        self._print("The operator of the NAT instance names the caches; no node, no address:")
        self._print("\n".join(self._stage.config.splitlines()[1:5]), indent=4)
        self._print("natproxy asks AWS which nodes they have, and opens a port for each node and endpoint:")
        self._natproxy = self._stage.start_natproxy()
        opened = "port opened"
        self._wait_for(lambda: len(self._logged(opened)) == 11, "natproxy did not open its eleven ports", untold=opened)
        self._run_natproxy("routes")
        self._start_clients()
        self._wait_for_all_clients(time.monotonic())
        ports = ", ".join(str(client.port) for client in self._stage.clients)
        self._say("client", f"talks on the ports {ports} from now on, 20 times a second on each")

    def _replace(self) -> None:
        node = f"{REDIS_ID}-003"
        client = self._client(f"{node}/0001")
        old, moment = self._cloud.where(node)[0], time.monotonic()
        self._print(f"The machine under {node} dies. AWS replaces it: same id, same name, another address.")
        new = self._cloud.replace(node)
        self._say("AWS", f"{node} was at {old} and is at {new}")
        self._wait_for_all_clients(moment)
        self._tell_of_client(client, moment)
        self._print(f"A DNAT rule would still lead to {old}, where nobody is.")

    def _fail_over(self) -> None:
        client, moment = self._client("primary"), time.monotonic()
        self._print("The primary dies, too. AWS makes a replica the primary, and the old primary comes back as one.")
        new = self._cloud.failover(REDIS_ID, kill=True)
        self._say("AWS", f"{new} is the primary now")
        self._wait_for(lambda: bool(self._logged("node role-moved", node=f"{new}/0001")), "natproxy did not notice")
        self._wait_for_all_clients(moment)
        self._tell_of_client(client, moment)
        self._print("The port of the primary stays the port of the primary, whichever node that is.")

    def _grow(self) -> None:
        self._print("Somebody adds a replica. Nobody tells natproxy, and nobody opens a port.")
        moment = time.monotonic()
        node = self._cloud.add_replica(REDIS_ID)
        self._say("AWS", f"has a new node, {node}")
        route = f"{node}/0001"
        self._wait_for(lambda: bool(self._logged("port opened", route=route)), f"natproxy opened no port for {node}")
        port = self._port(route)
        client = self._stage.start_client(port, route, RedisReader(port))
        self._wait_for_all_clients(time.monotonic())
        self._say("client", f"reads the counter from the new node on port {port}", "green")
        was_undisturbed = not any(one.silence_since(moment) for one in self._stage.clients if one is not client)
        if was_undisturbed:
            self._say("client", "noticed nothing on the other ports", "green")

    def _rewrite(self) -> None:
        self._print("A cluster client asks a node for all nodes, and then dials what it is told.")
        port = self._port(f"{SERVERLESS_ID}:primary")
        self._say(
            "AWS", f"{SERVERLESS_ID} is a cluster, and tells of {self._cloud.world.serverless_host(SERVERLESS_ID)}"
        )
        cluster, moment = ClusterCounter(port), time.monotonic()
        self._stage.start_client(port, f"{SERVERLESS_ID}:primary", cluster)
        self._wait_for_all_clients(moment)
        told = " and ".join(cluster.told())
        self._say("client", f"redis-py's RedisCluster dialled port {port}, was told of {told}, and counts", "green")

    def _connect(self) -> None:
        self._print("A developer has a bundle and runs natproxy connect: the client needs no TLS, and no key.")
        bundle, ports = f"{DEVELOPER}.zip", self._stage.ports
        self._say("operator", f"`natproxy pki issue {DEVELOPER}` has made {bundle}, and goes to its owner")
        self._say("laptop", f"`natproxy connect --bundle {bundle}` asks the portal, {HOST}:{ports.portal}")
        laptop, moment = self._stage.start_laptop(), time.monotonic()
        self._wait_for(lambda: laptop.port is not None, "natproxy connect brought nothing")
        port = laptop.port or 0
        self._stage.start_client(port, f"{STATIC_NAME}, on the laptop", RedisReader(port))
        self._wait_for_all_clients(moment)
        self._say("laptop", f"has {STATIC_NAME} on 127.0.0.1:{port}; to port {ports.static} it is mutual TLS")
        self._say("client", f"reads the counter on port {port}, and speaks no TLS", "green")
        self._say("operator", f"sees all of this in a browser: http://{HOST}:{ports.admin}/")

    def _sum_up(self, *, is_good: bool) -> None:
        self._console.rule(Text("What the client noticed", "bold"), align="left")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("PORT", "LEADS TO", "ANSWERS", "INTERRUPTIONS", "LONGEST"):
            table.add_column(name, justify="left" if name == "LEADS TO" else "right")
        for client in self._stage.clients:
            longest = client.silence_since(0.0)
            silences = len(client.silences)
            seconds = f"{longest:.1f} s" if silences else ""
            table.add_row(str(client.port), client.what, str(client.answers), str(silences or "none"), seconds)
        self._console.print(Padding(table, (0, 0, 0, 2), expand=False))
        if is_good:
            self._print("All was followed: no file changed, nothing restarted, no port moved.", "bold green")
        else:
            self._print("Not everything was followed. What natproxy wrote last:", "bold red")
            for line in [*map(str, self._natproxy.said[-5:]), *self._natproxy.strange_words[-5:]]:
                self._print(line, indent=2)

    def stay(self) -> None:
        """Leave it running for the reader, and say what natproxy logs, until a signal. Raises StopAskedError."""
        self._console.rule(Text("Now it is yours", "bold"), align="left")
        self._print("In another terminal, in this directory, type for example:")
        for what, command in self._commands():
            self._print(f"# {what}", "bright_black", indent=2)
            self._console.print(Text(f"  {command}"), soft_wrap=True)
        self._print("Below is what natproxy says meanwhile. Ctrl-C ends it all.", "bold")
        while self._natproxy.is_running:
            self._told.clear()
            self._tell_log(())
            self._stage.signals.wait_until(lambda: False, 0.2)
        self._print("natproxy has ended by itself.", "bold red")

    def _commands(self) -> Iterator[tuple[str, str]]:
        primary, port = self._port(f"{REDIS_ID}:primary"), self._port(f"{MEMCACHED_ID}/0001")
        if shutil.which("redis-cli"):
            yield "the primary, whichever node that is", f"redis-cli -p {primary} set greeting hello"
            yield "its first node", f"redis-cli -p {self._port(f'{REDIS_ID}-001/0001')} get greeting"
        else:
            ask = f"import redis; print(redis.Redis(port={primary}).get('{KEY}'))"
            yield "the primary, whichever node that is", f'{_short(Path(sys.executable))} -c "{ask}"'
        get = f"import pymemcache; print(pymemcache.Client(('{HOST}', {port})).get('{KEY}'))"
        yield "the first memcached", f'{_short(Path(sys.executable))} -c "{get}"'
        yield "where each port leads", self._natproxy_command("routes")
        yield "which port is whose, for good", self._natproxy_command("ports", "list")
        yield "whether all is well, and how to mend what is not", self._natproxy_command("doctor")
        yield "after a change to that file", self._natproxy_command("reload")
        yield "what is counted", f"curl http://{HOST}:{self._stage.ports.admin}/metrics"
        if (pid := self._cloud.server(f"{REDIS_ID}-001").pid) is not None:
            yield f"let {REDIS_ID}-001 die for good, and see what natproxy says", f"kill -9 {pid}"

    # What the chapters are told with

    def _start_clients(self) -> None:
        primary = self._port(f"{REDIS_ID}:primary")
        self._stage.start_client(primary, "primary", RedisCounter(primary))
        for number in (1, 2, 3):
            route = f"{REDIS_ID}-00{number}/0001"
            self._stage.start_client(self._port(route), route, RedisReader(self._port(route)))
        for number in (1, 2):
            route = f"{MEMCACHED_ID}/000{number}"
            self._stage.start_client(self._port(route), route, MemcachedCounter(self._port(route)))

    def _client(self, what: str) -> Client:
        return next(client for client in self._stage.clients if client.what == what)

    def _tell_of_client(self, client: Client, moment: float) -> None:
        seconds = client.silence_since(moment)
        said = f"was without an answer on port {client.port} for {seconds:.1f} s, and goes on as before"
        self._say("client", said if seconds else f"noticed nothing on port {client.port}", "green")

    def _logged(self, event: str, **fields: object) -> list[Line]:
        wanted = {"event": event, **fields}.items()
        return [line for line in self._natproxy.said if wanted <= line.items()]

    def _port(self, route: str) -> int:
        return int(str(self._logged("port opened", route=route)[-1]["port"]))

    def _wait_for(self, is_so: Callable[[], bool], complaint: str, *, untold: str = "") -> None:
        """Wait until ``is_so()`` and say what natproxy logs meanwhile, but for events that are ``untold``."""

        def is_over() -> bool:
            self._tell_log({*UNTOLD, untold})
            return is_so() or not self._natproxy.is_running

        self._stage.signals.wait_until(is_over, HEALING_SECONDS)
        if not is_so():
            reason = f"not within {HEALING_SECONDS:.0f} s" if self._natproxy.is_running else "natproxy ended by itself"
            raise NotHealedError(f"{complaint}: {reason}")

    def _wait_for_all_clients(self, moment: float) -> None:
        """Wait until every client has been answered after ``moment``, and none is without an answer."""
        clients = self._stage.clients

        def unanswered() -> list[Client]:
            return [client for client in clients if not client.is_answered_since(moment)]

        # An answer may have been on its way when the node died: only one that was asked for later counts.
        moment = max(moment, time.monotonic())
        try:
            self._wait_for(lambda: not unanswered(), "the client got no answer")
        except NotHealedError as error:
            ports = ", ".join(str(client.port) for client in unanswered())
            raise NotHealedError(f"{error} (on {ports})") from None

    def _tell_log(self, untold: Collection[str]) -> None:
        """Say what natproxy has logged since; the same thing only once in a chapter."""
        for line in self._natproxy.listen():
            said = sentence(line)
            if said is not None and said not in self._told and line["event"] not in untold:
                self._told.add(said)
                self._say("natproxy", said, "cyan")

    def _say(self, who: str, said: str, style: str = "") -> None:
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(width=8, no_wrap=True)
        row.add_column()
        row.add_row(Text(who, "bold"), Text(said, style))
        self._console.print(Padding(row, (0, 0, 0, 2), expand=False))

    def _print(self, text: str, style: str = "", *, indent: int = 0) -> None:
        self._console.print(Padding(Text(text, style), (0, 0, 0, indent), expand=False))

    def _natproxy_command(self, *words: str) -> str:
        program = Path(sys.executable).with_name("natproxy")
        start = _short(program) if program.exists() else f"{_short(Path(sys.executable))} -m natproxy"
        return " ".join([start, *words, "-c", str(self._natproxy.config_path)])

    def _run_natproxy(self, *words: str) -> None:
        """Run a command of natproxy's and let it speak for itself."""
        self._console.print(Text(f"$ {self._natproxy_command(*words)}", "bold"), soft_wrap=True)
        self._console.file.flush()
        argv = [sys.executable, "-m", "natproxy", *words, "-c", str(self._natproxy.config_path)]
        subprocess.run(argv, cwd=ROOT, env={**os.environ, "COLUMNS": str(self._console.width)}, check=False)


def _short(path: Path) -> str:
    """Return a path as it is typed in the current directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
