"""redis-py's RedisCluster of asyncio. I/O: talks to a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio.cluster import RedisCluster

from tests.clients.journey import Seed, main, text


class RedisPyAsyncio:
    """As journey.py wants it.

    ASKING and the command after it go over whatever connections to a node are free (redis-py 8.1): with more than one,
    it never gets through ASK, whoever is between. So what opens several has a client of its own.
    """

    def __init__(self, client: Any, other: Any) -> None:
        self._client = client
        self._other = other

    async def set(self, key: str, value: str) -> None:
        await self._client.set(key, value)

    async def get(self, key: str) -> str | None:
        found: str | None = await self._client.get(key)
        return found

    async def transaction(self, tag: str) -> Sequence[object]:
        async with self._other.pipeline(transaction=True) as batch:
            batch.set(f"{{{tag}}}:text", "x").incr(f"{{{tag}}}:count").get(f"{{{tag}}}:text")
            replies: list[object] = await batch.execute()
        return replies

    async def pipeline(self, pairs: Mapping[str, str]) -> Sequence[object]:
        async with self._other.pipeline(transaction=False) as batch:
            for key, value in pairs.items():
                batch.set(key, value)
            await batch.execute()
            for key in pairs:
                batch.get(key)
            replies: list[object] = await batch.execute()
        return replies

    async def hear(self, channels: Sequence[str], *, sharded: bool) -> Sequence[str]:
        listener = self._other.pubsub()
        try:
            await (listener.ssubscribe if sharded else listener.subscribe)(*channels)
            heard: list[str] = []
            subscribed = 0
            while len(heard) < len(channels):
                receive = listener.get_sharded_message if sharded else listener.get_message
                message = await receive(timeout=0.05)
                if message is None:
                    continue
                if message["type"] in ("subscribe", "ssubscribe"):
                    subscribed += 1
                    if subscribed == len(channels):
                        for channel in channels:
                            await (self._client.spublish if sharded else self._client.publish)(channel, channel)
                elif message["type"] in ("message", "smessage"):
                    heard.append(text(message["data"]))
        finally:
            await listener.aclose()
        return heard

    async def scan(self, pattern: str) -> Sequence[str]:
        return [key async for key in self._client.scan_iter(match=pattern, count=100)]

    async def addresses(self) -> Sequence[str]:
        return [str(node.name) for node in self._client.get_nodes()]

    async def close(self) -> None:
        await self._client.aclose()
        await self._other.aclose()


async def connect(seed: Seed) -> RedisPyAsyncio:
    """Find the cluster."""
    more: dict[str, Any] = {}
    if seed.tls is not None:
        more |= {"ssl": True, "ssl_ca_certs": seed.tls.ca}
        more |= {"ssl_certfile": seed.tls.certificate, "ssl_keyfile": seed.tls.key}
    clients = [RedisCluster(host=seed.host, port=seed.port, decode_responses=True, **more) for _ in range(2)]
    return RedisPyAsyncio(*[await client.initialize() for client in clients])


if __name__ == "__main__":
    main(connect)
