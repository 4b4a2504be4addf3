from __future__ import annotations

import os
import stat
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from natproxy.errors import PkiError
from natproxy.pki.handout import check_out, write_bundle

NOW = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)
CA = Path("/nowhere/natproxy-pki")
BUNDLE = {"client.key": b"key", "README.txt": b"words"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["dev1.zip", "dev1.ZIP"])
def test_a_zip(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    check_out(out, CA, force=False)
    write_bundle(BUNDLE, out, NOW)
    assert mode(out) == 0o600
    with zipfile.ZipFile(out) as archive:
        assert {info.filename: archive.read(info) for info in archive.infolist()} == BUNDLE


@pytest.mark.parametrize("is_there", [True, False])
def test_a_directory(tmp_path: Path, is_there: bool) -> None:
    out = tmp_path / "dev1"
    if is_there:
        out.mkdir()
    check_out(out, CA, force=False)
    write_bundle(BUNDLE, out, NOW)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == BUNDLE
    assert {mode(path) for path in out.iterdir()} == {0o600}
    assert is_there or mode(out) == 0o700


@pytest.mark.parametrize("name", ["dev1.zip", "dev1"])
def test_nothing_is_overwritten_without_force(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    write_bundle(BUNDLE, out, NOW)
    with pytest.raises(PkiError, match=rf"{out} is there already: .*--force"):
        check_out(out, CA, force=False)
    check_out(out, CA, force=True)
    write_bundle({"client.key": b"new"}, out, NOW)
    if out.is_dir():
        assert (out / "client.key").read_bytes() == b"new"
        assert (out / "README.txt").read_bytes() == b"words"


@pytest.mark.parametrize("force", [True, False])
def test_what_cannot_be_written_is_known_before(tmp_path: Path, force: bool) -> None:
    (tmp_path / "directory.zip").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name, why in [
        ("directory.zip", "is no file"),
        ("file", "is no directory"),
        ("nowhere", "is no directory"),
        ("missing/dev1.zip", f"there is no directory {tmp_path}/missing"),
        ("missing/dev1", f"there is no directory {tmp_path}/missing"),
        ("file/dev1", f"there is no directory {tmp_path}/file"),
        ("x" * 300, "File name too long"),
    ]:
        with pytest.raises(PkiError, match=rf"cannot write {tmp_path / name}: .*{why}"):
            check_out(tmp_path / name, CA, force=force)


def test_a_directory_of_others_is_known_before() -> None:
    child = os.fork()
    if child == 0:
        with suppress(PermissionError):
            os.setuid(65534)
        try:
            check_out(Path("/dev1.zip"), CA, force=False)
        except PkiError as error:
            os._exit(7 if str(error) == "cannot write /dev1.zip: the directory / is not writable" else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("out", ["ca", "ca/issued", "ca/dev1", "somewhere/../ca"])
def test_a_bundle_is_not_spread_out_among_the_files_of_the_ca(tmp_path: Path, out: str) -> None:
    (tmp_path / "ca" / "issued").mkdir(parents=True)
    (tmp_path / "somewhere").mkdir()
    for force in (False, True):
        with pytest.raises(PkiError, match="lies in the CA's own directory"):
            check_out(tmp_path / out, tmp_path / "ca", force=force)
    check_out(tmp_path / "ca" / "dev1.zip", tmp_path / "ca", force=False)
