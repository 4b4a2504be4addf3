"""A cloud for each test, and natproxy processes that have to end as they should."""

from __future__ import annotations

import contextlib
import resource
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import closing_all
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud
from tests.standins.echo import EchoNodes

if TYPE_CHECKING:  # they make use of what stands here
    from tests.scenarios.ways import House, Houses


class Natproxies:
    """Makes daemons; at the end each is stopped, and what it said is looked at."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        """For files of their tests, too."""
        self.made: list[Daemon] = []

    def prepare(self, cloud: Cloud | None = None, *, environ: Mapping[str, str] | None = None, **config: Any) -> Daemon:
        """Return a daemon that is not started yet. ``config``: the config file's keys."""
        directory = self.directory / str(len(self.made))
        directory.mkdir()
        if cloud is not None:
            config.setdefault("resolver", cloud.resolver)
        found = environ if environ is not None else cloud.environ if cloud is not None else {}
        daemon = Daemon(directory, found, config)
        self.made.append(daemon)
        return daemon

    def __call__(self, cloud: Cloud | None = None, **config: Any) -> Daemon:
        """Return a daemon that is ready, and where there are caches, has heard of them."""
        daemon = self.prepare(cloud, **config).start()
        if daemon.config.get("caches"):
            eventually(lambda: daemon.get("/readyz")[0] == 200, "AWS has answered")
        return daemon

    def finish(self) -> None:
        """Stop all that still run, as an operator would, and judge."""
        verdicts = [verdict for daemon in self.made for verdict in _verdicts(daemon)]
        for number, daemon in enumerate(self.made):
            daemon.close()
            print(f"--- the log of natproxy {number}")
            for line in daemon.log.all():
                print(line)
            print(*daemon.strange_lines, sep="")
        assert not verdicts, "\n".join(verdicts)


def _verdicts(daemon: Daemon) -> Iterator[str]:
    if daemon.is_running:
        if status := daemon.stop():
            yield f"natproxy ended with {status}, not 0"
        yield from (f"natproxy wrote: {line}" for line in daemon.strange_lines)
    for line in daemon.log.all():
        if line["level"] == "critical" or "traceback" in line or "task" in line:
            yield f"natproxy logged: {line}"
    yield from (f"natproxy wrote: {line}" for line in daemon.strange_lines if "Traceback" in line)


@pytest.fixture(autouse=True)
def no_connection_outlives_its_test() -> Iterator[None]:
    with closing_all():
        yield


@contextlib.contextmanager
def some_natproxies() -> Iterator[Natproxies]:
    """Make daemons in a directory of their own."""
    with tempfile.TemporaryDirectory(prefix="natproxy-") as directory:
        natproxies = Natproxies(Path(directory))
        try:
            yield natproxies
        finally:
            natproxies.finish()


@pytest.fixture
def natproxy() -> Iterator[Natproxies]:
    with some_natproxies() as natproxies:
        yield natproxies


@pytest.fixture(scope="module")
def module_natproxy() -> Iterator[Natproxies]:
    """For one that all tests of a module share, or that needs long for something and may do so beside the others."""
    with some_natproxies() as natproxies:
        yield natproxies


@pytest.fixture(scope="package")
def houses() -> Iterator[Houses]:
    """Daemons that many tests share, with a port for every way that bytes can take."""
    from tests.scenarios.ways import Houses

    with some_natproxies() as natproxies, Houses(natproxies) as made:
        yield made


@pytest.fixture
def house(houses: Houses, workers: int) -> House:
    """The daemon with so many workers."""
    return houses.of(workers)


@pytest.fixture
def tidy_house(house: House) -> Iterator[House]:
    """The same; in the end it holds no descriptor more than at first."""
    with closing_all():
        yield house
    house.wait_until_left()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        yield made


@pytest.fixture
def echo_cloud() -> Iterator[Cloud]:
    """Nodes that say what they are told: quick to make by the hundred, and they take any bytes."""
    with Cloud(backing="echo") as made:
        yield made


@pytest.fixture
def paper_cloud() -> Iterator[Cloud]:
    """AWS and DNS tell of nodes; nobody listens there."""
    with Cloud(backing="none") as made:
        yield made


@pytest.fixture(scope="package")
def clusters() -> Iterator[Cloud]:
    """Two real clusters and a group, which no test leaves other than it found them.

    ``clu`` has three shards of two nodes; ``tlu`` has two, and speaks TLS; ``grp`` has no cluster mode.
    """
    with Cloud() as made:
        made.replication_group("grp", replicas=1)
        made.replication_group("clu", mode="cluster-enabled", shards=3, replicas=1)
        made.replication_group("tlu", mode="cluster-enabled", shards=2, replicas=1, tls="required")
        yield made


@pytest.fixture(scope="session", autouse=True)
def many_descriptors() -> Iterator[None]:
    """Thousands of connections need as many descriptors here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """Where a node listens that says again what it hears."""
    nodes = EchoNodes()
    nodes.start()
    nodes.open("127.0.0.1", 0)
    yield "{}:{}".format(*nodes.where()[0])
    nodes.stop()
