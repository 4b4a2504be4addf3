"""Listeners that only echo: nodes by the hundred for tests that need no cache. I/O: TCP, a thread."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter

from tests.standins.loop import LoopThread

CHUNK_BYTES = 64 * 1024
BACKLOG = 1024


class EchoNodes:
    """Many echoing listeners in one thread."""

    def __init__(self) -> None:
        self._thread = LoopThread("echo-standins")
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._tasks: dict[asyncio.Task[object], tuple[str, int]] = {}
        self._accepted: Counter[tuple[str, int]] = Counter()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        for address, port in list(self._servers):
            self.close(address, port)
        self._thread.stop()

    def open(self, address: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen and echo there, over TLS with ``tls``; port 0 is any that is free."""
        self._thread.call(self._open((address, port), tls))

    def close(self, address: str, port: int) -> None:
        """Stop listening there, and cut its connections."""
        self._thread.call(self._close((address, port)))

    def where(self) -> list[tuple[str, int]]:
        """Every address and port that is open, in the order they were opened."""
        return list(self._servers)

    def accepted(self, address: str, port: int) -> int:
        """How many connections were accepted there so far."""
        return self._accepted[address, port]

    async def _open(self, asked: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._echo(writer.get_extra_info("sockname"), reader, writer)

        server = await asyncio.start_server(serve, *asked, ssl=tls, backlog=BACKLOG)
        self._servers[server.sockets[0].getsockname()] = server

    async def _close(self, where: tuple[str, int]) -> None:
        self._servers.pop(where).close()
        tasks = [task for task, there in self._tasks.items() if there == where]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _echo(self, where: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = where
        self._accepted[where] += 1
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            del self._tasks[task]
            writer.close()
