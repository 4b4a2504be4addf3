from __future__ import annotations

import io
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from natproxy.errors import PkiError
from natproxy.pki.bundle import bundle_files, zipped
from natproxy.pki.unpacking import MOST_BYTES, NAMES, manifest_of, read, unpacked

FILES = bundle_files(
    "dev1", "cache.example.com", 6378, datetime(2027, 1, 1, tzinfo=UTC), certificate=b"c", key=b"k", ca=b"ca"
)


def packed(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(zipped(files, datetime.now(UTC)))
    return path


def test_a_bundle_is_read_as_it_was_written_packed_or_not(tmp_path: Path) -> None:
    path = packed(tmp_path / "dev1.zip", FILES)
    found = unpacked(path)
    assert found == {name: FILES[name] for name in NAMES}
    assert manifest_of(path, found)["host"] == "cache.example.com"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "dev1")
    assert unpacked(tmp_path / "dev1") == found
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dev1", "dev1.zip"]  # nothing was written


def test_a_manifest_may_be_missing(tmp_path: Path) -> None:
    path = packed(tmp_path / "dev1.zip", {name: FILES[name] for name in NAMES[:3]})
    assert manifest_of(path, unpacked(path)) == {}


@pytest.mark.parametrize(("content", "reason"), [(b"{", "not good JSON"), (b"[]", "not a JSON object")])
def test_a_manifest_that_is_none_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(PkiError, match=reason):
        manifest_of(Path("dev1.zip"), {"manifest.json": content})


def test_what_is_missing_or_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match=r"missing.zip cannot be read: No such file"):
        unpacked(tmp_path / "missing.zip")
    with pytest.raises(PkiError, match=r"ca.crt, client.crt, client.key is not in it"):
        unpacked(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(PkiError, match="it is not a zip file"):
        unpacked(tmp_path / "text")
    with pytest.raises(PkiError, match=r"cannot be read: Is a directory"):
        read(tmp_path)


def test_what_is_larger_than_a_bundle_can_be_is_not_read(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            archive.writestr(name, bytes(MOST_BYTES + 1))
    (tmp_path / "bomb.zip").write_bytes(bomb.getvalue())
    with pytest.raises(PkiError, match="is not in it"):
        unpacked(tmp_path / "bomb.zip")
    (tmp_path / "large").write_bytes(bytes(4 * MOST_BYTES + 1))
    with pytest.raises(PkiError, match="larger than a bundle can be"):
        unpacked(tmp_path / "large")
    (tmp_path / "client.key").write_bytes(bytes(MOST_BYTES + 1))
    with pytest.raises(PkiError, match=f"larger than {MOST_BYTES} bytes"):
        unpacked(tmp_path)


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "dev1.zip", FILES | {"client.crt": b"certificate" * 100})
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(PkiError, match=r"the bundle .* cannot be read"):
        unpacked(path)


def test_what_a_file_unpacks_to_is_bounded_whatever_the_zip_says(tmp_path: Path) -> None:
    path = tmp_path / "dev1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in NAMES[:3]:
            archive.writestr(name, bytes(100 * MOST_BYTES), zipfile.ZIP_DEFLATED)
    said = (100 * MOST_BYTES).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(said, (10).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(PkiError, match="Bad CRC"):
            unpacked(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * MOST_BYTES
    finally:
        tracemalloc.stop()


def test_what_is_packed_in_a_way_without_bounds_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "dev1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in NAMES[:3]:
            archive.writestr(name, b"x", zipfile.ZIP_LZMA)
    with pytest.raises(PkiError, match="packed in a way that no bundle is"):
        unpacked(path)
