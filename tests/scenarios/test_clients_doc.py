"""docs/clients.md: every block is run as it stands there, through the real process, and has to do what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.crc import key_slot

from tests.clients.programs import ROOT
from tests.scenarios.conftest import Natproxies
from tests.scenarios.docblocks import SECONDS, Block, Done, Laptop, read_blocks
from tests.scenarios.docstage import ELSEWHERE, HOST, SIDES, Laptops, Side, dressed, open_cloud, open_laptop
from tests.standins.cloud import Cloud

PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_HOST = "203.0.113.73"
RUN, NOT_RUN = PAGE.split("## Clients that our tests do not run\n")
LANGUAGES = {"sh", "python", "js", "php"}
BLOCKS = {variant.title: variant for block in read_blocks(RUN) for variant in block.variants()}
NAMELESS = {title for title in BLOCKS if "redis-cli" in title or "benchmark" in title} | {"redis-py (valkey)"}
"""Those that take natproxy's certificate for any name: the page says so."""
ENVIRON = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_SESSION_TOKEN": "t" * 800}
TEN = [str(number) for number in range(10)]
TYPE_TEN = "".join(f"set key:{number} {number}\n" for number in TEN) + "".join(f"get key:{number}\n" for number in TEN)


class Run(NamedTuple):
    """One block, on one side."""

    title: str
    side: Side
    host: str = HOST

    @property
    def id(self) -> str:
        """What the test is called by."""
        return f"{self.title}-{self.side}"


def sides(title: str) -> list[Side]:
    """By address only once for each library."""
    if title.endswith("without TLS"):
        return ["clear"]
    is_its_first = "(" not in title and not title.startswith(("Group: ", "Password: ", "IAM: "))
    return ["named", "addressed", "clear"] if is_its_first else ["named", "clear"]


RUNS = [Run(title, side) for title in BLOCKS for side in sides(title)]
STRANGERS = [Run(title, "named", ELSEWHERE) for title in BLOCKS if "named" in sides(title) and "iovalkey" not in title]
STRANGER_SECONDS = 3.0
"""Some try for ever to get in."""


@pytest.fixture(scope="module")
def shared_cloud() -> Iterator[Cloud]:
    with open_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def laptops(shared_cloud: Cloud, module_natproxy: Natproxies, tmp_path_factory: pytest.TempPathFactory) -> Laptops:
    return {side: open_laptop(shared_cloud, module_natproxy, side, tmp_path_factory.mktemp(side)) for side in SIDES}


@pytest.fixture(scope="module")
def done(laptops: Laptops, request: pytest.FixtureRequest) -> Iterator[Mapping[Run, Future[Done]]]:
    """All runs that are asked for, some at a time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    found = [item.callspec.params.get("run") for item in items if hasattr(item, "callspec")]
    runs = [run for run in found if isinstance(run, Run)]
    pool = ThreadPoolExecutor(4)
    try:
        yield {run: pool.submit(go, laptops[run.side], run) for run in runs if why_not(laptops, run) is None}
    finally:
        pool.shutdown(cancel_futures=True)


def go(laptop: Laptop, run: Run) -> Done:
    block = dressed(BLOCKS[run.title], run.side, laptop, run.host)
    typed = "" if block.language != "sh" else "set greeting hello\nget greeting\n" if is_group(run.title) else TYPE_TEN
    typed = "acl whoami\n" + typed if "user app" in block.code else typed
    seconds = STRANGER_SECONDS if run.host == ELSEWHERE and run.title not in NAMELESS else SECONDS
    return laptop.run(block, typed=typed, environ=ENVIRON, seconds=seconds)


def why_not(laptops: Laptops, run: Run) -> str | None:
    return laptops[run.side].why_not(BLOCKS[run.title])


def is_group(title: str) -> bool:
    return title.startswith("Group: ")


def tells(title: str, output: str) -> bool:
    """Whether a block has said what it says where all is well."""
    said = "\n".join(line for line in output.splitlines() if not line.startswith("->"))  # redis-cli's "Redirected to"
    if "benchmark" in title:
        return {"SET", "GET"} <= set(re.findall(r"(\w+): [\d.]+ requests per second", said)) and "changed" not in said
    if is_group(title):
        return re.search(r"\bhello\b", said) is not None
    if title.startswith("Password"):
        return said.split() == ["app", *["OK"] * 10, *TEN]
    return re.findall(r"\b\d\b", said) == TEN


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_a_block_does_what_it_says(laptops: Laptops, done: Mapping[Run, Future[Done]], run: Run) -> None:
    if (reason := why_not(laptops, run)) is not None:
        pytest.skip(reason)
    result = done[run].result()
    assert result.returncode == 0, result.stderr + result.stdout
    assert tells(run.title, result.stdout), result.stderr + result.stdout


@pytest.mark.parametrize("run", STRANGERS, ids=lambda run: run.id)
def test_natproxy_by_a_name_that_is_not_in_its_certificate_is_refused(
    laptops: Laptops, done: Mapping[Run, Future[Done]], run: Run
) -> None:
    if (reason := why_not(laptops, run)) is not None:
        pytest.skip(reason)
    result = done[run].result()
    is_well = result.returncode == 0 and tells(run.title, result.stdout)
    assert is_well == (run.title in NAMELESS), result.stderr + result.stdout


# What a client may be told besides.

ANCHORS = {
    "redis-py": ("redis-py", "port=6385,"),
    "valkey-py": ("redis-py (valkey)", "port=6385,"),
    "valkey-glide": ("valkey-glide", "request_timeout=5000,"),
    "ioredis, iovalkey": ("ioredis", "slotsRefreshTimeout: 5000,"),
    "node-redis": ("node-redis", "createCluster({"),
    "phpredis": ("phpredis", "$tls);"),
}
"""Which block a line of the table is for, and after what it goes there."""


def options() -> dict[str, tuple[str, str]]:
    """Return what the table says of each client: the option, and what it needs besides."""
    table = PAGE.split("### Reading from replicas\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `([^|]+)` \| (?:`(from [^|]+)`)?.*\|$", table, flags=re.MULTILINE)
    return {client: (option, prelude) for client, option, prelude in rows}


def test_the_table_of_options_has_a_line_for_each_library() -> None:
    assert options().keys() == ANCHORS.keys()


@pytest.fixture(scope="module")
def written(laptops: Laptops) -> None:
    """The ten keys have their values, also on the replicas by the time that somebody reads."""
    result = laptops["clear"].run(dressed(BLOCKS["redis-py"], "clear", laptops["clear"]))
    assert tells("redis-py", result.stdout), result.stderr


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("client", ANCHORS)
def test_with_the_option_of_its_library_replicas_answer(shared_cloud: Cloud, laptops: Laptops, client: str) -> None:
    (title, anchor), (option, prelude) = ANCHORS[client], options()[client]
    block, laptop = BLOCKS[title], laptops["clear"]
    if (reason := laptop.why_not(block)) is not None:
        pytest.skip(reason)
    shards = shared_cloud.world.group("my-cluster-tls").shards
    names = [member for shard in shards for member in shard.members if member != shard.primary]
    replicas = [shared_cloud.cluster_node(name) for name in names]

    def answered() -> int:
        told = [node.info("commandstats", "cmdstat_get") for node in replicas]
        return sum(int(found[1]) for text in told if (found := re.match(r"calls=(\d+)", text)))

    before = answered()
    addition = f"{anchor}\n{option}" if block.language == "php" else f"{anchor} {option},"
    first, rest = dressed(block, "clear", laptop).with_words({anchor: addition}).code.split("\n", 1)
    assert addition in rest
    result = laptop.run(Block(title, block.language, f"{first}\n{prelude}\n{rest}"))
    assert tells(title, result.stdout), result.stderr + result.stdout
    assert answered() > before


# The README's own lines.


def readme_lines(chapter: str) -> list[str]:
    """Return the first block of a chapter, without its comments."""
    block = README.split(f"\n## {chapter}\n")[1].split("```\n")[1]
    return [line.partition("  #")[0].rstrip() for line in block.splitlines()]


def test_the_readme_s_lines_do_what_they_say(laptops: Laptops) -> None:
    laptop = laptops["clear"]
    cli, py = readme_lines("Clients that find nodes by themselves")
    name, python = py.split(maxsplit=1)
    assert name == "redis-py"
    rest = BLOCKS["redis-py"].code.partition("\n)\n")[2]
    blocks = {
        "redis-cli": Block("README", "sh", cli),
        "redis-py": Block("README", "python", f"from redis import RedisCluster\nclient = {python}\n{rest}"),
    }
    for title, block in blocks.items():
        if (reason := laptop.why_not(block)) is not None:
            pytest.skip(reason)
        there = dressed(block.with_words({README_HOST: HOST}), "clear", laptop)
        result = laptop.run(there, typed=TYPE_TEN)
        assert tells(title, result.stdout), result.stderr + result.stdout


def test_the_readme_s_ping_is_answered(laptops: Laptops) -> None:
    laptop = laptops["clear"]
    [line] = re.findall(rf"^ *(redis-cli -h {re.escape(README_HOST)} -p 6379 ping)", README, flags=re.MULTILINE)
    block = Block("README", "sh", line)
    if (reason := laptop.why_not(block)) is not None:
        pytest.skip(reason)
    assert laptop.run(dressed(block.with_words({README_HOST: HOST}), "clear", laptop)).stdout == "PONG\n"


# The page, and how it is read.


def test_what_is_not_run_stands_where_the_page_says_so() -> None:
    assert {block.language for block in BLOCKS.values()} == LANGUAGES
    assert {block.title for block in read_blocks(RUN)} <= BLOCKS.keys()
    assert len(re.findall(r"^ *```\w", RUN, flags=re.MULTILINE)) == len(read_blocks(RUN))
    assert LANGUAGES.isdisjoint(re.findall(r"^ *```(\w+)", NOT_RUN, flags=re.MULTILINE))
    assert read_blocks(NOT_RUN) == []  # they are parts of lists


def test_each_block_has_a_heading_of_its_own() -> None:
    titles = [block.title for block in read_blocks(RUN)]
    assert len(set(titles)) == len(titles)
    assert len(BLOCKS) == len(titles) + sum(len(block.likewise) for block in read_blocks(RUN))


def test_the_ten_keys_are_on_three_nodes() -> None:
    assert {key_slot(f"key:{number}".encode()) * 3 // 16384 for number in TEN} == {0, 1, 2}


def test_ports_and_lines_without_tls_are_as_the_page_says() -> None:
    for name in ("6385", "6391", "6392", "11214"):
        assert f"`{name}`" in RUN.split("\n## Clusters")[0]
    for block in BLOCKS.values():
        left = block.without_tls().code
        assert not re.search(r"ca\.crt|client\.(crt|key)", left), left
        assert (left == block.code) == block.title.endswith("without TLS")


def test_blocks_are_read_as_they_are_written() -> None:
    page = """
# One
text ```not``` a block

```sh
first \\
  --tls x \\
  last
```

```
no language
```

## Two
```python
import redis  # comment
ssl=True,  # TLS
```

The same with `from valkey import X`, but `not` this.
"""
    one, two = read_blocks(page)
    assert one == Block("One", "sh", "first \\\n  --tls x \\\n  last\n")
    assert one.without_tls().code == "first \\\n  last\n"
    assert [(block.title, block.without_tls().code) for block in two.variants()] == [
        ("Two", "import redis  # comment\n"),
        ("Two (valkey)", "from valkey import X\n"),
    ]
    assert two.with_words({"redis": "valkey"}).code.startswith("import valkey")


def test_what_cannot_be_run_says_why(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    assert laptop.why_not(Block("x", "python", "import redis\n")) is None
    for language, code in (("python", "import nosuchthing\n"), ("js", "import x from 'nosuchthing'\n")):
        assert "nosuchthing" in str(laptop.why_not(Block("x", language, code)))


def test_a_block_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    result = Laptop(tmp_path).run(Block("x", "python", "import redis, time\ntime.sleep(60)\n"), seconds=0.5)
    assert (result.returncode, result.stdout) == (1, "")
    assert "timed out" in result.stderr
