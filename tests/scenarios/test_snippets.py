"""``natproxy snippets``: what it prints for a cache is run as it stands, and brings back what is in that cache."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import msgspec
import pytest
from redis.crc import key_slot

from natproxy.documents import Snippet, SnippetsDocument
from tests.clients.programs import ROOT
from tests.scenarios.conftest import Natproxies
from tests.scenarios.connected import Connected
from tests.scenarios.daemon import Daemon
from tests.scenarios.docblocks import Block, Done, Laptop
from tests.scenarios.docstage import ELSEWHERE, HOST, issue_bundle
from tests.standins.cloud import Cloud

Side = Literal["clear", "tls", "mutual", "passthrough"]
"""No TLS; TLS; TLS with the developer's certificate; TLS with the node."""
Name = Literal["one", "clu", "grp", "mem", "tls-grp"]
PORTAL_PORT = 25800
KEY, VALUE = "key:0", "hello from the cache"

REDIS = ("redis-cli", "redis-py", "ioredis", "node-redis", "valkey-glide")
MEMCACHED = ("pymemcache", "django-elastipymemcache")
CACHES: dict[Side, tuple[Name, ...]] = {
    "clear": ("one",),
    "tls": ("clu", "grp", "mem"),
    "mutual": ("one",),
    "passthrough": ("tls-grp",),
}
"""In the clear and with a certificate, the lines for the others are the blocks of docs/clients.md: tests/snippets
compares them, and test_clients_doc runs those."""
UNTESTED = {"lettuce", "go-redis"}
"""Their libraries cannot be had where the tests run: tests/snippets looks at how their lines are written."""
NAMELESS = {"redis-cli"}
"""Those that take any name in a certificate."""
STRANGER_SECONDS = 3.0
"""Some try for ever to get in."""

LANGUAGES = {"shell": "sh", "python": "python", "javascript": "js"}
TYPED = {"redis-cli": f"get {KEY}\n", "openssl": "PING\nQUIT\n", "telnet": "PING\nQUIT\n"}
FOUND = {"redis-cli": VALUE, "redis-py": "True", "ioredis": "PONG", "valkey-glide": "PONG", "openssl": "+PONG\n+OK\n"}


class Run(NamedTuple):
    """One client's lines for one cache, on one side."""

    side: Side
    cache: Name
    client: str
    host: str = HOST

    @property
    def id(self) -> str:
        """What the test is called by."""
        return f"{self.side}-{self.cache}-{self.client}"

    @property
    def wanted(self) -> str:
        """What its lines print where all is well."""
        if self.cache == "mem":
            return "VERSION " if self.client == "openssl" else VALUE
        if self.client == "node-redis":
            return VALUE if self.cache == "clu" else "PONG"
        return FOUND[self.client]


def runs() -> Iterator[Run]:
    for side, names in CACHES.items():
        for name in names:
            clients = MEMCACHED if name == "mem" else REDIS
            tool = () if side == "clear" else ("openssl",)
            yield from (Run(side, name, client) for client in (*clients, *tool))


RUNS = list(runs())
STRANGERS = [run._replace(host=ELSEWHERE) for run in RUNS if run.side == "passthrough"]
"""By name and certificate they are like the lines of docs/clients.md, of which test_clients_doc tries them all."""


@dataclass(frozen=True)
class Stage:
    """One daemon, what it prints, and a developer's computer."""

    daemon: Daemon
    laptop: Laptop
    documents: Mapping[str, SnippetsDocument]
    environ: Mapping[str, str]

    def snippet(self, run: Run) -> Snippet:
        """Return the lines of a client."""
        return next(each for each in self.documents[run.cache].snippets if each.client == run.client)


@pytest.fixture(scope="module")
def made_cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        cloud.replication_group("clu", mode="cluster-enabled", shards=3, replicas=0)
        cloud.replication_group("grp", replicas=1)
        cloud.replication_group("tls-grp", replicas=1, tls="required")
        cloud.standalone("one")
        cloud.memcached("mem", nodes=2)
        shard = cloud.world.group("clu").shards[key_slot(KEY.encode()) * 3 // 16384]
        cloud.cluster_node(shard.primary).ask("SET", KEY, VALUE)
        for node in ("0001", "0002"):
            for key in (KEY, f":1:{KEY}"):  # Django's own keys begin with its version and prefix
                said = tell(cloud.where("mem", node), f"set {key} 0 0 {len(VALUE)}\r\n{VALUE}\r\n")
                assert said == b"STORED\r\n"
        trusting = ssl.create_default_context(cadata=cloud.authority.pem.decode())
        primary, tls_primary = (cloud.world.group(name).shards[0].primary for name in ("grp", "tls-grp"))
        for node, context in (("one", None), (primary, None), (tls_primary, trusting)):
            host = cloud.world.node_host(node)
            assert tell(cloud.where(node), f'SET {KEY} "{VALUE}"\r\n', context, host) == b"+OK\r\n"
        yield cloud


def tell(where: tuple[str, int], words: str, context: ssl.SSLContext | None = None, host: str = "") -> bytes:
    """Say something to a node itself; return what it answers."""
    with socket.create_connection(where, timeout=30) as clear:
        talk = clear if context is None else context.wrap_socket(clear, server_hostname=host)
        talk.sendall(words.encode())
        said = talk.recv(100)
        talk.close()
        return said


@pytest.fixture(scope="module")
def stages(
    made_cloud: Cloud, module_natproxy: Natproxies, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[Side, Stage]:
    return {side: open_stage(made_cloud, module_natproxy, side, tmp_path_factory) for side in get_args(Side)}


def open_stage(cloud: Cloud, natproxies: Natproxies, side: Side, directories: pytest.TempPathFactory) -> Stage:
    directory = directories.mktemp(side)
    daemon = natproxies.prepare(cloud)
    names = CACHES[side]
    daemon.config |= {"public_host": HOST, "public_ip": daemon.ip, "caches": [{"id": name} for name in names]}
    tls = issue_bundle(daemon, HOST, directory)
    if side == "passthrough":
        daemon.config["clients"] = {"tls": "passthrough"}
    elif side == "tls":
        daemon.config["tls"] = {key: tls[key] for key in ("certificate", "key")}
    elif side == "mutual":
        daemon.config |= {"tls": tls, "portal": {"port": PORTAL_PORT}}
    daemon.start()
    last = {"one": "one/0001", "clu": "clu:configuration", "grp": "grp:reader", "mem": "mem:configuration"}
    for name in names:
        daemon.wait_for_route(last.get(name, f"{name}:reader"))
    roots = directory / "system.crt"
    roots.write_bytes(cloud.authority.pem)
    hosts = [HOST, ELSEWHERE]
    hosts += [str(route.target).rpartition(":")[0] for route in daemon.routes().values() if side == "passthrough"]
    return Stage(
        daemon,
        Laptop(directory, dict.fromkeys(hosts, daemon.ip)),
        {name: printed(daemon, name) for name in names},
        {"SSL_CERT_FILE": str(roots), "NODE_EXTRA_CA_CERTS": str(roots)},
    )


def printed(daemon: Daemon, cache: str, *words: str) -> SnippetsDocument:
    done = daemon.cli("snippets", cache, "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return msgspec.json.decode(done.stdout, type=SnippetsDocument)


@pytest.fixture(scope="module")
def done(stages: Mapping[Side, Stage], request: pytest.FixtureRequest) -> Iterator[Mapping[Run, Future[Done]]]:
    """All runs that are asked for, some at a time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    found = [item.callspec.params.get("run") for item in items if hasattr(item, "callspec")]
    pool = ThreadPoolExecutor(4)
    try:
        yield {
            run: pool.submit(go, stages[run.side], run)
            for run in found
            if isinstance(run, Run) and why_not(stages[run.side], run) is None
        }
    finally:
        pool.shutdown(cancel_futures=True)


def block_of(stage: Stage, run: Run) -> Block:
    snippet = stage.snippet(run)
    block = Block(run.id, LANGUAGES[snippet.language], snippet.text)
    if run.host == HOST:
        return block
    names = {str(route.target).rpartition(":")[0] for route in stage.daemon.routes().values()}
    return block.with_words(dict.fromkeys([HOST, *names], run.host))


def go(stage: Stage, run: Run) -> Done:
    typed = "version\nquit\n" if run.cache == "mem" else TYPED.get(run.client, "")
    seconds = STRANGER_SECONDS if run.host == ELSEWHERE and run.client not in NAMELESS else 60.0
    return stage.laptop.run(block_of(stage, run), typed=typed, environ=stage.environ, seconds=seconds)


def why_not(stage: Stage, run: Run) -> str | None:
    if run.client == "openssl" and shutil.which("openssl") is None:
        return "not installed: openssl"
    return stage.laptop.why_not(block_of(stage, run))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_a_client_s_lines_do_what_they_say(
    stages: Mapping[Side, Stage], done: Mapping[Run, Future[Done]], run: Run
) -> None:
    if (reason := why_not(stages[run.side], run)) is not None:
        pytest.skip(reason)
    result = done[run].result()
    assert result.returncode == 0, result.stderr + result.stdout
    assert run.wanted in result.stdout, result.stderr + result.stdout


@pytest.mark.parametrize("run", STRANGERS, ids=lambda run: run.id)
def test_a_name_that_is_not_in_the_certificate_is_refused(
    stages: Mapping[Side, Stage], done: Mapping[Run, Future[Done]], run: Run
) -> None:
    if (reason := why_not(stages[run.side], run)) is not None:
        pytest.skip(reason)
    result = done[run].result()
    is_well = result.returncode == 0 and run.wanted in result.stdout
    assert is_well == (run.client in NAMELESS), result.stderr + result.stdout


def test_all_that_is_printed_is_run(stages: Mapping[Side, Stage]) -> None:
    ran = {(run.side, run.cache, run.client) for run in RUNS}
    offered = {
        (side, cache, snippet.client)
        for side, stage in stages.items()
        for cache, document in stage.documents.items()
        for snippet in document.snippets
        if snippet.client not in UNTESTED | {"telnet"}
    }
    assert ran == offered


@pytest.mark.skipif(shutil.which("telnet") is None, reason="telnet is not installed")
def test_telnet_gets_through(stages: Mapping[Side, Stage]) -> None:
    stage = stages["clear"]
    line = stage.snippet(Run("clear", "one", "telnet")).text.replace(HOST, stage.daemon.ip)
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", f"exec {line}"], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as telnet:
        assert telnet.stdin is not None
        assert telnet.stdout is not None
        try:
            telnet.stdin.write("PING\n")
            telnet.stdin.flush()
            assert any(said == "+PONG\n" for said in telnet.stdout)
        finally:
            telnet.kill()


def test_the_shell_gets_one_client_s_lines_and_nothing_else(stages: Mapping[Side, Stage]) -> None:
    stage = stages["mutual"]
    words = [sys.executable, "-m", "natproxy", "snippets", "one", "--client", "redis-py", "-c", str(stage.daemon.path)]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == stage.snippet(Run("mutual", "one", "redis-py")).text
    assert "your bundle" in told.stderr


def test_behind_natproxy_connect_the_lines_are_those_without_tls(stages: Mapping[Side, Stage]) -> None:
    local = printed(stages["mutual"].daemon, "one", "--connect").snippets
    assert local[0].text == f"natproxy connect {HOST}:{PORTAL_PORT} --bundle dev1.zip --cache one\n"
    clear = stages["clear"].documents["one"].snippets
    assert [each.text for each in local[1:]] == [each.text.replace(HOST, "127.0.0.1") for each in clear]


@pytest.mark.parametrize("client", ["redis-cli", "redis-py"])
def test_while_natproxy_connect_runs_its_lines_do_what_they_say(stages: Mapping[Side, Stage], client: str) -> None:
    stage = stages["mutual"]
    run = Run("mutual", "one", client)
    snippet = next(each for each in printed(stage.daemon, "one", "--connect").snippets if each.client == client)
    bundle = stage.daemon.path.parent / "dev1.zip"
    with Connected(f"{stage.daemon.ip}:{PORTAL_PORT}", bundle, "--cache", "one") as connected:
        here, there = connected.port("one/0001"), stage.daemon.ports()["one/0001"]
        block = Block(client, LANGUAGES[snippet.language], snippet.text).with_words({str(there): str(here)})
        (elsewhere := stage.laptop.directory / client).mkdir()
        result = Laptop(elsewhere).run(block, typed=TYPED.get(client, ""))
        assert run.wanted in result.stdout, result.stderr + result.stdout
        assert connected.stop() == 0
