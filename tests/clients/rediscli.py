"""``redis-cli -c``, kept running with its input and output in a program's hand, and ``redis-cli --cluster``.

I/O: runs redis-cli, which talks to a cluster.
"""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence

from redis.crc import key_slot

from tests.clients.journey import Seed, main

REPLY = re.compile(r'(?:\d+\) )?(?:(OK|QUEUED)|\(integer\) (\d+)|"(.*)"|\(nil\))')
"""A reply of these tests', or an item of one; whatever it says otherwise, or nothing at all, is a problem."""
REMARK = re.compile(r"-> Redirected |Reading messages\.\.\. |\(\d+\.\d+s\)$")
"""How lines begin that answer nothing."""
CHECKED = re.compile(r"^(?:\x1b\S+)?[MS]: \w+ (\S+)$", re.MULTILINE)
CALLED = re.compile(r"^\S+:\d+: ")


class RedisCliError(Exception):
    """What it printed instead of a reply."""


class RedisCli:
    """As journey.py wants it."""

    def __init__(self, seed: Seed) -> None:
        self._tls: list[str] = []
        if seed.tls is not None:
            self._tls += ["--tls", "--cacert", seed.tls.ca, "--cert", seed.tls.certificate, "--key", seed.tls.key]
        self._seed = f"{seed.host}:{seed.port}"
        self._argv = ["redis-cli", "-c", "-h", seed.host, "-p", str(seed.port), "--no-raw", *self._tls]
        self._process: Process | None = None

    async def set(self, key: str, value: str) -> None:
        await self._ask(f"SET {key} {value}")

    async def get(self, key: str) -> str | None:
        return (await self._ask(f"GET {key}"))[0] or None

    async def transaction(self, tag: str) -> Sequence[object]:
        await self._ask(f"GET {{{tag}}}:text")  # on its node, in case that is another one
        commands = ("MULTI", f"SET {{{tag}}}:text x", f"INCR {{{tag}}}:count", f"GET {{{tag}}}:text", "EXEC")
        replies = await self._ask(*commands, lines=7)
        return [replies[-3], int(replies[-2]), replies[-1]]

    async def pipeline(self, pairs: Mapping[str, str]) -> Sequence[object]:
        keys = sorted(pairs, key=lambda key: key_slot(key.encode()))  # it connects anew for each redirection
        await self._ask(*(f"SET {key} {pairs[key]}" for key in keys), lines=len(pairs))
        found = dict(zip(keys, await self._ask(*(f"GET {key}" for key in keys), lines=len(pairs)), strict=True))
        return [found[key] for key in pairs]

    async def hear(self, channels: Sequence[str], *, sharded: bool) -> Sequence[str]:
        # One can subscribe to channels of one slot only.
        groups = [[channel] for channel in channels] if sharded else [list(channels)]
        listeners = [await self._start("SSUBSCRIBE" if sharded else "SUBSCRIBE", *group) for group in groups]
        try:
            for listener, group in zip(listeners, groups, strict=True):
                await _lines(listener, 3 * len(group))
            for channel in channels:
                await self._ask(f"{'SPUBLISH' if sharded else 'PUBLISH'} {channel} {channel}")
            heard = [
                line
                for listener, group in zip(listeners, groups, strict=True)
                for line in (await _lines(listener, 3 * len(group)))[2::3]
            ]
        finally:
            for listener in listeners:
                await _end(listener)
        return heard

    async def scan(self, pattern: str) -> Sequence[str]:
        words = ("SCAN", "0", "MATCH", pattern, "COUNT", "100000", "--cluster-only-masters")
        lines = (await self._cluster("call", *words)).splitlines()[1:]
        return [line for line in lines if line and not CALLED.match(line)]

    async def addresses(self) -> Sequence[str]:
        said = await self._cluster("check")
        if "[OK] All 16384 slots covered." not in said:
            raise RedisCliError(said)
        return CHECKED.findall(said)

    async def close(self) -> None:
        if self._process is not None:
            await _end(self._process)
            self._process = None

    async def _cluster(self, order: str, *words: str) -> str:
        argv = ["redis-cli", *self._tls, "--cluster", order, self._seed, *words]
        process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        said = (await process.communicate())[0].decode()
        if process.returncode != 0:
            raise RedisCliError(said)
        return said

    async def _start(self, *words: str) -> Process:
        return await asyncio.create_subprocess_exec(*self._argv, *words, stdin=PIPE, stdout=PIPE, stderr=STDOUT)

    async def _ask(self, *commands: str, lines: int = 1) -> list[str]:
        """Say commands, and return the lines that answer them; what goes wrong ends the process."""
        if self._process is None:
            self._process = await self._start()
        process = self._process
        try:
            assert process.stdin is not None
            process.stdin.write("".join(f"{command}\n" for command in commands).encode())
            return await _lines(process, lines)
        except BaseException:  # also where it takes too long: what answers what is not known any more
            await self.close()
            raise


async def _lines(process: Process, count: int) -> list[str]:
    assert process.stdout is not None
    found: list[str] = []
    while len(found) < count:
        line = (await process.stdout.readline()).decode()
        if reply := REPLY.fullmatch(line.removesuffix("\n")):
            found.append("".join(reply.groups("")))
        elif not REMARK.match(line):
            raise RedisCliError(line or "it ended")
    return found


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def connect(seed: Seed) -> RedisCli:
    """Get ready; it finds the cluster as it is asked."""
    return RedisCli(seed)


if __name__ == "__main__":
    main(connect)
