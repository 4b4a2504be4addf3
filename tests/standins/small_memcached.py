"""A memcached in a few lines, for machines that have none: the everyday text commands. I/O: asyncio streams."""

from __future__ import annotations

import asyncio

MAX_VALUE_BYTES = 1 << 20


class SmallMemcached:
    """get, gets, set, add, replace, delete, incr, decr, touch, flush_all, version, quit. Nothing ever expires."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, bytes]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def port(self) -> int | None:
        """Where it listens; None where it does not."""
        return None if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def listen(self, address: str, port: int) -> None:
        """Start to serve."""
        self._server = await asyncio.start_server(self._serve, address, port)

    async def close(self) -> None:
        """Stop to serve, and cut every connection."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (line := (await reader.readuntil(b"\r\n")).decode().split()) != ["quit"]:
                words = [word for word in line if word != "noreply"]
                reply = await self._answer(reader, words)
                if len(words) == len(line):
                    writer.write(reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, words: list[str]) -> bytes:
        match words:
            case ["set" | "add" | "replace" as how, key, flags, _expires, length]:
                if int(length) > MAX_VALUE_BYTES:
                    raise ConnectionAbortedError
                value = (await reader.readexactly(int(length) + 2))[:-2]
                return self._store(how, key, flags, value)
            case ["get" | "gets" as how, *keys] if keys:
                return self._get(keys, cas=" 1" if how == "gets" else "")
            case ["incr" | "decr" as how, key, amount]:
                return self._count(key, int(amount) if how == "incr" else -int(amount))
            case _:
                return self._simple(words)

    def _simple(self, words: list[str]) -> bytes:
        match words:
            case ["delete", key]:
                reply = b"DELETED" if self._values.pop(key, None) else b"NOT_FOUND"
            case ["touch", key, _expires]:
                reply = b"TOUCHED" if key in self._values else b"NOT_FOUND"
            case ["flush_all", *_]:
                self._values.clear()
                reply = b"OK"
            case ["version"]:
                reply = b"VERSION 1.6.0-standin"
            case _:
                reply = b"ERROR"
        return reply + b"\r\n"

    def _get(self, keys: list[str], cas: str) -> bytes:
        found = [(key, *self._values[key]) for key in keys if key in self._values]
        lines = [f"VALUE {key} {flags} {len(value)}{cas}\r\n".encode() + value + b"\r\n" for key, flags, value in found]
        return b"".join(lines) + b"END\r\n"

    def _store(self, how: str, key: str, flags: str, value: bytes) -> bytes:
        if (how == "add" and key in self._values) or (how == "replace" and key not in self._values):
            return b"NOT_STORED\r\n"
        self._values[key] = (flags, value)
        return b"STORED\r\n"

    def _count(self, key: str, change: int) -> bytes:
        if key not in self._values:
            return b"NOT_FOUND\r\n"
        flags, value = self._values[key]
        counted = str(max(0, int(value) + change)).encode()
        self._values[key] = (flags, counted)
        return counted + b"\r\n"
