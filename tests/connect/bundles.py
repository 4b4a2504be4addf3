"""Bundles for tests, with every kind of mistake. I/O: files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from natproxy.pki.bundle import zipped
from tests.standins.certificates import Authority, Issued


def bundle_of(
    path: Path, ca: Authority, issued: Issued, *, host: str = "cache.example.com", port: int = 6378, **more: bytes
) -> Path:
    """Write a zip; ``more`` replaces files (client_crt=...), empty leaves one out."""
    manifest: dict[str, Any] = {"version": 1, "name": "dev1", "host": host, "portal_port": port}
    files = {
        "client.crt": issued.certificate,
        "client.key": issued.key,
        "ca.crt": ca.pem,
        "manifest.json": json.dumps(manifest).encode(),
    }
    files |= {name.replace("_", "."): content for name, content in more.items()}
    path.write_bytes(zipped({name: content for name, content in files.items() if content}, datetime.now(UTC)))
    return path
