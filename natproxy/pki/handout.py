"""Where a bundle goes: a zip file, or a directory. I/O: talks to the file system."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from natproxy.errors import PkiError
from natproxy.pki import files
from natproxy.pki.bundle import zipped


def check_out(out: Path, ca: Path, *, force: bool) -> None:
    """Raise PkiError where a bundle could not be written there, or would overwrite something without ``force``.

    ``ca`` is the CA's own directory, among whose files a bundle must not be spread out.
    """
    try:
        if not _is_zip(out) and out.resolve().is_relative_to(ca.resolve()):
            message = f"{out} lies in the CA's own directory: choose another --out"
            raise PkiError(message)
        _check(out, force=force)
    except OSError as error:
        message = f"cannot write {out}: {error.strerror or error}"
        raise PkiError(message) from error


def write_bundle(bundle: dict[str, bytes], out: Path, now: datetime) -> None:
    """Write the bundle's files: as a zip where ``out`` ends in .zip, else into the directory. Raises PkiError."""
    if _is_zip(out):
        files.write({out: zipped(bundle, now)})
        return
    files.make_directory(out)
    files.write({out / name: content for name, content in bundle.items()})


def _check(out: Path, *, force: bool) -> None:
    parent = out.absolute().parent
    if not parent.is_dir():
        message = f"cannot write {out}: there is no directory {parent}"
        raise PkiError(message)
    is_there = os.path.lexists(out)
    if is_there and not (out.is_file() if _is_zip(out) else out.is_dir()):
        message = f"cannot write {out}: it is there, and is no {'file' if _is_zip(out) else 'directory'}"
        raise PkiError(message)
    place = out if out.is_dir() else parent
    if not os.access(place, os.W_OK | os.X_OK):
        message = f"cannot write {out}: the directory {place} is not writable"
        raise PkiError(message)
    if is_there and not force and (_is_zip(out) or any(out.iterdir())):
        message = f"{out} is there already: choose another --out, or overwrite it with --force"
        raise PkiError(message)


def _is_zip(out: Path) -> bool:
    return out.suffix.lower() == ".zip"
