"""A bundle as its developer has it, zip or unpacked: its files, read into memory. I/O: reads files.

Nothing is written anywhere: the key stays where the developer keeps it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from natproxy.errors import PkiError

NAMES = ("ca.crt", "client.crt", "client.key", "manifest.json")
"""What of a bundle is for programs; the last may be missing."""
MOST_BYTES = 1024 * 1024
"""Of one file; of the zip as a whole four times that."""


def unpacked(path: Path) -> Mapping[str, bytes]:
    """Return the files of a bundle of ``natproxy pki issue`` by name. Raises PkiError, which names what is wrong."""
    files = _gathered(path) if path.is_dir() else _unzipped(path)
    if missing := [name for name in NAMES[:3] if name not in files]:
        message = f"{path} is not a bundle of `natproxy pki issue`: {', '.join(missing)} is not in it"
        raise PkiError(message)
    return files


def manifest_of(path: Path, files: Mapping[str, bytes]) -> Mapping[str, object]:
    """Return what the manifest of an unpacked bundle says; nothing where there is none. Raises PkiError."""
    if (content := files.get("manifest.json")) is None:
        return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = f"{path}: its manifest.json is not good JSON: {error}"
        raise PkiError(message) from error
    if not isinstance(found, dict):
        message = f"{path}: its manifest.json is not a JSON object"
        raise PkiError(message)
    return found


def read(path: Path) -> bytes:
    """Return a file's content. Raises PkiError where it cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise PkiError(message) from error
    if len(content) > MOST_BYTES:
        message = f"{path} is larger than {MOST_BYTES} bytes"
        raise PkiError(message)
    return content


def _gathered(directory: Path) -> dict[str, bytes]:
    return {name: read(directory / name) for name in NAMES if (directory / name).exists()}


def _unzipped(path: Path) -> dict[str, bytes]:
    try:
        if path.stat().st_size > 4 * MOST_BYTES:
            message = f"{path} is larger than a bundle can be ({4 * MOST_BYTES} bytes)"
            raise PkiError(message)
        with zipfile.ZipFile(path) as archive:
            there = {info.filename: info for info in archive.infolist() if info.file_size <= MOST_BYTES}
            return {name: _member(archive, there[name]) for name in NAMES if name in there}
    except zipfile.BadZipFile as error:
        message = f"the bundle {path} cannot be read: {_lowered(error)}"
        raise PkiError(message) from error
    except (OSError, RuntimeError, zlib.error, EOFError, ValueError) as error:
        message = f"the bundle {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise PkiError(message) from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return one file; what it unpacks to is bounded by its size, not by what the zip says that is."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        message = f"{info.filename} is packed in a way that no bundle is"
        raise zipfile.BadZipFile(message)
    with archive.open(info) as file:
        return file.read(MOST_BYTES)


def _lowered(error: zipfile.BadZipFile) -> str:
    """Say what zipfile says of what is no zip, or a damaged one, as part of a sentence."""
    text = str(error)
    return "it is not a zip file" if text == "File is not a zip file" else text
