from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from natproxy.doctor.handed import (
    MOST_PORTS,
    USUAL_PORTS,
    Papers,
    Port,
    read_config_ports,
    read_papers,
    read_ports,
    read_routes,
)
from natproxy.errors import ConfigError, DoctorError
from natproxy.pki.bundle import zipped
from tests.standins.certificates import Authority, Issued

MANIFEST = json.dumps({"version": 1, "name": "dev1", "host": "cache.dev.example.com", "portal_port": 6378})


@pytest.fixture
def issued() -> Issued:
    return Authority().issue("dev1", usage="client")


def bundle(directory: Path, issued: Issued, **more: bytes) -> Path:
    import datetime

    files = {"client.crt": issued.certificate, "client.key": issued.key, "ca.crt": Authority().pem}
    files["manifest.json"] = MANIFEST.encode()
    path = directory / "dev1.zip"
    kept = {name: content for name, content in {**files, **more}.items() if content}
    path.write_bytes(zipped(kept, datetime.datetime.now(datetime.UTC)))
    return path


def test_ports_alone_are_certain_and_those_of_a_range_are_not() -> None:
    assert read_ports("11211, 6379-6380") == (Port(6379), Port(6380), Port(11211, is_certain=True))
    assert len(read_ports(USUAL_PORTS)) == 20


@pytest.mark.parametrize("text", ["", "redis", "0", "65536", "6380-6379", "6379;6380", "6379-"])
def test_what_are_no_ports(text: str) -> None:
    with pytest.raises(DoctorError, match="neither a port nor a range"):
        read_ports(text)


def test_too_many_ports() -> None:
    with pytest.raises(DoctorError, match=str(MOST_PORTS)):
        read_ports("1-60000")


def test_ports_of_what_routes_printed(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    route = {"port": 6379, "kind": "node", "state": "open"}
    document = {"version": 1, "generated": "", "caches": [{"id": "a", "routes": [route, {**route, "port": None}]}]}
    path.write_text(json.dumps(document))
    assert read_routes(path) == (Port(6379, is_certain=True),)
    path.write_text('{"version": 1}')
    with pytest.raises(DoctorError, match="is not what `natproxy routes --json` prints"):
        read_routes(path)
    path.write_text('{"version": 1, "generated": "", "caches": []}')
    with pytest.raises(DoctorError, match="no ports to try"):
        read_routes(path)


def test_ports_of_a_config(tmp_path: Path) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text(
        "clients: {allow: 198.51.100.27/32}\ncaches: [{id: my-redis, ports: 6379-6380}]\n"
        "static: [{name: legacy, port: 6490, target: 'legacy.internal:6379'}]\n"
    )
    assert read_config_ports(path) == (Port(6379), Port(6380), Port(6490, is_certain=True))
    with pytest.raises(ConfigError):
        read_config_ports(tmp_path / "missing.yaml")


def test_a_bundle_as_a_zip_and_unpacked(tmp_path: Path, issued: Issued) -> None:
    path = bundle(tmp_path, issued)
    packed = read_papers(path, None, None, None)
    assert (packed.certificate, packed.key) == (issued.certificate, issued.key)
    assert packed.host == "cache.dev.example.com"
    packed.context()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "dev1")
    assert read_papers(tmp_path / "dev1", None, None, None) == packed


def test_single_files_win_over_the_bundle(tmp_path: Path, issued: Issued) -> None:
    path = bundle(tmp_path, issued)
    other = Authority("Other CA")
    (tmp_path / "other.crt").write_bytes(other.pem)
    assert read_papers(path, tmp_path / "other.crt", None, None).ca == other.pem
    certificate, key = other.issue("dev2", usage="client").write(tmp_path, "dev2")
    assert read_papers(path, None, certificate, key).certificate == certificate.read_bytes()


def test_nothing_handed_over_is_the_system_s_roots() -> None:
    assert read_papers(None, None, None, None) == Papers()
    Papers().context()


def test_what_cannot_be_used_is_named(tmp_path: Path, issued: Issued) -> None:
    with pytest.raises(DoctorError, match="--cert and --key"):
        read_papers(None, None, tmp_path / "client.crt", None)
    with pytest.raises(DoctorError, match=r"missing.zip cannot be read: No such file"):
        read_papers(tmp_path / "missing.zip", None, None, None)
    with pytest.raises(DoctorError, match=r"client.key is not in it"):
        read_papers(bundle(tmp_path, issued, **{"client.key": b""}), None, None, None)
    with pytest.raises(DoctorError, match=r"missing.crt cannot be read"):
        read_papers(None, tmp_path / "missing.crt", None, None)
    with pytest.raises(DoctorError, match="not good JSON"):
        read_papers(bundle(tmp_path, issued, **{"manifest.json": b"{"}), None, None, None)
    with pytest.raises(DoctorError, match="not a JSON object"):
        read_papers(bundle(tmp_path, issued, **{"manifest.json": b"[]"}), None, None, None)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(DoctorError, match="cannot be read"):
        read_papers(tmp_path / "text.zip", None, None, None)


def test_certificates_that_do_not_go_together_are_named(issued: Issued) -> None:
    with pytest.raises(DoctorError, match="cannot be used together: key values mismatch"):
        Papers(None, issued.certificate, Authority().issue("dev2").key).context()
    with pytest.raises(DoctorError, match="the CA cannot be used"):
        Papers(b"hello").context()


def test_a_damaged_bundle_is_named(tmp_path: Path, issued: Issued) -> None:
    path = tmp_path / "dev1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ca.crt", issued.certificate * 4)
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(DoctorError, match="cannot be read"):
        read_papers(path, None, None, None)
    with pytest.raises(DoctorError, match="not good JSON"):
        read_papers(bundle(tmp_path, issued, **{"manifest.json": b"[" * 100_000}), None, None, None)


def test_an_encrypted_key_is_named_and_nobody_is_asked_for_its_password(issued: Issued) -> None:
    key = serialization.load_pem_private_key(issued.key, None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(DoctorError, match="your key is encrypted"):
        Papers(None, issued.certificate, encrypted).context()
