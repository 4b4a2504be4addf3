"""valkey-glide's GlideClusterClient, whose core is redis-rs'. I/O: talks to a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import glide

from tests.clients.journey import Seed, main, text


class ValkeyGlide:
    """As journey.py wants it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def set(self, key: str, value: str) -> None:
        await self._client.set(key, value)

    async def get(self, key: str) -> str | None:
        found = await self._client.get(key)
        return None if found is None else text(found)

    async def transaction(self, tag: str) -> Sequence[object]:
        batch = glide.ClusterBatch(is_atomic=True)
        batch.set(f"{{{tag}}}:text", "x").incr(f"{{{tag}}}:count").get(f"{{{tag}}}:text")
        done, count, found = await self._client.exec(batch, raise_on_error=True)
        return [done, count, text(found)]

    async def pipeline(self, pairs: Mapping[str, str]) -> Sequence[object]:
        batch = glide.ClusterBatch(is_atomic=False)
        for key, value in pairs.items():
            batch.set(key, value)
        await self._client.exec(batch, raise_on_error=True)
        batch = glide.ClusterBatch(is_atomic=False)
        for key in pairs:
            batch.get(key)
        return [text(found) for found in await self._client.exec(batch, raise_on_error=True)]

    async def hear(self, channels: Sequence[str], *, sharded: bool) -> Sequence[str]:
        await (self._client.ssubscribe if sharded else self._client.subscribe)(set(channels), 10_000)
        for channel in channels:
            await self._client.publish(channel, channel, sharded=sharded)
        heard = [text((await self._client.get_pubsub_message()).message) for _ in channels]
        await (self._client.sunsubscribe if sharded else self._client.unsubscribe)(set(channels), 10_000)
        return heard

    async def scan(self, pattern: str) -> Sequence[str]:
        cursor: Any = glide.ClusterScanCursor()
        found: set[str] = set()
        while not cursor.is_finished():
            cursor, keys = await self._client.scan(cursor, match=pattern, count=100)
            found.update(map(text, keys))
        return list(found)

    async def addresses(self) -> Sequence[str]:
        answers = await self._client.info([glide.InfoSection.SERVER], glide.AllNodes())
        return list(map(text, answers))

    async def close(self) -> None:
        await self._client.close()


async def connect(seed: Seed) -> ValkeyGlide:
    """Find the cluster."""
    configuration = glide.GlideClusterClientConfiguration(
        [glide.NodeAddress(seed.host, seed.port)],
        use_tls=seed.tls is not None,
        request_timeout=5000,
        advanced_config=glide.AdvancedGlideClusterClientConfiguration(connection_timeout=5000, tls_config=_tls(seed)),
    )
    return ValkeyGlide(await glide.GlideClusterClient.create(configuration))


def _tls(seed: Seed) -> Any:
    if seed.tls is None:
        return None
    return glide.TlsAdvancedConfiguration(
        root_pem_cacerts=Path(seed.tls.ca).read_bytes(),
        client_cert_pem=Path(seed.tls.certificate).read_bytes(),
        client_key_pem=Path(seed.tls.key).read_bytes(),
    )


if __name__ == "__main__":
    main(connect)
