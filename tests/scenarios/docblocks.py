"""The code blocks of a Markdown page, and a laptop on which they are run as they stand. I/O: files, processes."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from tests.clients.programs import GLIDE_PYTHON, ROOT

NODE_MODULES = ROOT / "tests/clients/node_modules"
LIKEWISE = "The same with "
"""Begins the sentence after a block that names lines to be written in place of its first one."""
SECONDS = 60.0

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Block:
    """One block, and where it stands."""

    title: str
    """The heading above it."""
    language: str
    code: str
    likewise: Sequence[str] = ()
    """Lines that do as well as its first one."""

    def variants(self) -> Iterator[Block]:
        """Yield the block itself, and those with another first line, each under a title of its own."""
        yield replace(self, likewise=())
        _, rest = self.code.split("\n", 1)
        for line in self.likewise:
            yield Block(f"{self.title} ({_package(line)})", self.language, f"{line}\n{rest}")

    def without_tls(self) -> Block:
        """Return it without the lines that say TLS."""
        lines = self.code.splitlines(keepends=True)
        return replace(self, code="".join(line for line in lines if "TLS" not in line and "--tls" not in line))

    def with_words(self, words: Mapping[str, str]) -> Block:
        """Return it with other words, such as host names."""
        code = self.code
        for word, other in words.items():
            code = code.replace(word, other)
        return replace(self, code=code)


def read_blocks(page: str) -> list[Block]:
    """Return all blocks that name a language and stand at a line's beginning."""
    found: list[Block] = []
    title, language, code = "", "", list[str]()
    for line in page.splitlines():
        if language and line == "```":
            found.append(Block(title, language, "".join(code)))
            language = ""
        elif language:
            code.append(f"{line}\n")
        elif fence := re.fullmatch(r"```(\w*)", line):
            language, code = fence[1] or "none", []
        elif heading := re.fullmatch(r"#+ (.+)", line):
            title = heading[1]
        elif line.startswith(LIKEWISE):
            found[-1] = replace(found[-1], likewise=re.findall("`([^`]+)`", line.partition(", but")[0]))
    return [block for block in found if block.language != "none"]


def _package(line: str) -> str:
    """Return what an import takes from where."""
    found = re.search(r"from '?(\w+)", line)
    assert found is not None, line
    return found[1]


class Laptop:
    """A developer's: a directory with a bundle's files, and names that lead to natproxy there, and only there."""

    def __init__(self, directory: Path, hosts: Mapping[str, str] | None = None) -> None:
        """``hosts``: addresses by name."""
        self.directory = directory
        self._hosts = directory / "hosts" if hosts else None
        if hosts:
            (directory / "hosts").write_text("".join(f"{hosts[name]} {name}\n" for name in hosts), encoding="utf-8")
        (directory / "node_modules").symlink_to(NODE_MODULES)  # where Node.js looks for packages

    def run(
        self, block: Block, *, typed: str = "", environ: Mapping[str, str] | None = None, seconds: float = SECONDS
    ) -> Done:
        """Run a block in that directory, with ``typed`` for its input; one that takes too long has failed."""
        argv = [*self._prefix(), *self._argv(block)]
        try:
            return subprocess.run(
                argv,
                cwd=self.directory,
                env={**os.environ, **(environ or {})},
                input=typed,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return Done(argv, 1, "", f"{error}: {error.stderr!r}")

    def why_not(self, block: Block) -> str | None:
        """Return why a block cannot be run here; None where it can."""
        if self._hosts and not can_have_names():
            return "names of one's own need a mount namespace, which cannot be had here"
        return why_missing(block)

    def _argv(self, block: Block) -> list[str]:
        if block.language == "sh":
            return ["sh", "-c", block.code]
        suffix = {"python": "py", "js": "mjs", "php": "php"}[block.language]
        path = self.directory / f"{re.sub('[^a-z]+', '-', block.title.lower())}{abs(hash(block))}.{suffix}"
        path.write_text(block.code, encoding="utf-8")
        program = python_for(block) if block.language == "python" else {"js": "node", "php": "php"}[block.language]
        return [str(program), path.name]

    def _prefix(self) -> list[str]:
        if not self._hosts:
            return []
        return [*_OWN_MOUNTS, 'mount --bind "$0" /etc/hosts && exec "$@"', str(self._hosts)]


_OWN_MOUNTS = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c"]


@functools.cache
def can_have_names() -> bool:
    """Whether a program can be given an /etc/hosts of its own."""
    probe = [*_OWN_MOUNTS, "mount --bind /etc/hosts /etc/hosts"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, check=False, capture_output=True).returncode == 0
    )


def why_missing(block: Block) -> str | None:
    """Return what is not installed of what a block needs; None where all is."""
    missing = None
    if block.language == "python":
        missing = None if python_for(block) else block.code.split("\n", 1)[0]
    elif block.language == "js":
        package = _package(block.code)
        missing = None if shutil.which("node") and (NODE_MODULES / package).exists() else package
    elif block.language == "php":
        missing = None if "redis" in _php_modules() else "php with php-redis"
    elif block.language == "sh":
        missing = next((word for word in ("redis-cli", "redis-benchmark") if not shutil.which(word)), None)
    return missing and f"not installed: {missing} (`make clients` does that)"


@functools.cache
def _php_modules() -> list[str]:
    if shutil.which("php") is None:
        return []
    return subprocess.run(["php", "-m"], capture_output=True, text=True, check=True).stdout.split()


def python_for(block: Block) -> Path | None:
    """Return the Python that has the package of a block's first line; None where none has it."""
    words = re.match(r"(?:from|import) (\w+)", block.code)
    assert words is not None, block.code
    if find_spec(words[1]):
        return Path(sys.executable)
    return GLIDE_PYTHON if any(GLIDE_PYTHON.parents[1].glob(f"lib/python3.*/site-packages/{words[1]}")) else None
