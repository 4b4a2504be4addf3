"""redis-py's RedisCluster, without asyncio. I/O: talks to a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from tests.clients.journey import Seed, main, text


class RedisPy:
    """As journey.py wants it."""

    def __init__(self, seed: Seed) -> None:
        more: dict[str, Any] = {}
        if seed.tls is not None:
            more |= {"ssl": True, "ssl_ca_certs": seed.tls.ca}
            more |= {"ssl_certfile": seed.tls.certificate, "ssl_keyfile": seed.tls.key}
        self._client: Any = redis.RedisCluster(host=seed.host, port=seed.port, decode_responses=True, **more)

    async def set(self, key: str, value: str) -> None:
        self._client.set(key, value)

    async def get(self, key: str) -> str | None:
        found: str | None = self._client.get(key)
        return found

    async def transaction(self, tag: str) -> Sequence[object]:
        with self._client.pipeline(transaction=True) as batch:
            batch.set(f"{{{tag}}}:text", "x").incr(f"{{{tag}}}:count").get(f"{{{tag}}}:text")
            replies: list[object] = batch.execute()
        return replies

    async def pipeline(self, pairs: Mapping[str, str]) -> Sequence[object]:
        with self._client.pipeline(transaction=False) as batch:
            for key, value in pairs.items():
                batch.set(key, value)
            batch.execute()
            for key in pairs:
                batch.get(key)
            replies: list[object] = batch.execute()
        return replies

    async def hear(self, channels: Sequence[str], *, sharded: bool) -> Sequence[str]:
        with self._client.pubsub() as listener:
            subscribe = listener.ssubscribe if sharded else listener.subscribe
            publish = self._client.spublish if sharded else self._client.publish
            subscribe(*channels)
            heard: list[str] = []
            subscribed = 0
            while len(heard) < len(channels):
                receive = listener.get_sharded_message if sharded else listener.get_message
                message = receive(timeout=0.05)
                if message is None:
                    continue
                if message["type"] in ("subscribe", "ssubscribe"):
                    subscribed += 1
                    if subscribed == len(channels):
                        for channel in channels:
                            publish(channel, channel)
                elif message["type"] in ("message", "smessage"):
                    heard.append(text(message["data"]))
        return heard

    async def scan(self, pattern: str) -> Sequence[str]:
        return list(self._client.scan_iter(match=pattern, count=100))

    async def addresses(self) -> Sequence[str]:
        return [str(node.name) for node in self._client.get_nodes()]

    async def close(self) -> None:
        self._client.close()


async def connect(seed: Seed) -> RedisPy:
    """Find the cluster."""
    return RedisPy(seed)


if __name__ == "__main__":
    main(connect)
