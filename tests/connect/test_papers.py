from __future__ import annotations

import json
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from natproxy.connect.papers import read_papers, stamp
from natproxy.errors import BundleError
from tests.connect.bundles import bundle_of
from tests.standins.certificates import Authority, Issued


@pytest.fixture
def ca() -> Authority:
    return Authority()


@pytest.fixture
def dev(ca: Authority) -> Issued:
    return ca.issue("dev1", usage="client")


def test_a_bundle_says_who_this_is_and_what_is_dialled(tmp_path: Path, ca: Authority, dev: Issued) -> None:
    path = bundle_of(tmp_path / "dev1.zip", ca, dev, port=7000)
    papers = read_papers(path, time.time())
    assert (papers.name, papers.host, papers.portal_port) == ("dev1", "cache.example.com", 7000)
    assert (papers.own.certificate, papers.own.key, papers.ca) == (dev.certificate, dev.key, ca.pem)
    assert papers.expires_on == (datetime.now(UTC) + timedelta(days=365)).strftime("%Y-%m-%d")
    assert b"PRIVATE" not in repr(papers).encode()
    papers.context()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "dev1")
    unpacked = read_papers(tmp_path / "dev1", time.time())
    assert (unpacked.own, unpacked.host) == (papers.own, papers.host)


def test_a_manifest_that_says_less_is_made_up_for(tmp_path: Path, ca: Authority, dev: Issued) -> None:
    for manifest in (b"", b"{}", json.dumps({"host": "", "portal_port": 70000}).encode()):
        papers = read_papers(bundle_of(tmp_path / "dev1.zip", ca, dev, manifest_json=manifest), time.time())
        assert (papers.host, papers.portal_port) == (None, 6378)


def test_what_cannot_be_used_is_named(tmp_path: Path, ca: Authority, dev: Issued) -> None:
    path = tmp_path / "dev1.zip"

    def refused(match: str, now: float | None = None) -> None:
        with pytest.raises(BundleError, match=match):
            read_papers(path, now or time.time())

    refused("dev1.zip cannot be read: No such file")
    path.write_text("hello")
    refused("it is not a zip file")
    bundle_of(path, ca, dev, client_key=b"")
    refused("client.key is not in it")
    bundle_of(path, ca, dev, manifest_json=b'{"version": 2}')
    refused("version 2, this natproxy reads version 1")
    bundle_of(path, ca, dev, client_crt=b"hello")
    refused("no certificate in its client.crt")
    bundle_of(path, ca, dev, client_crt=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    refused("client.crt cannot be read")
    bundle_of(path, ca, dev, client_key=ca.issue("dev2", usage="client").key)
    refused("the key does not belong to the certificate")
    bundle_of(path, ca, dev, ca_crt=b"hello")
    refused("there is no CA certificate in it")
    bundle_of(path, ca, dev)
    refused(r"expired on 20\d\d-\d\d-\d\d: ask the operator for a new bundle", time.time() + 366 * 86400)
    refused(r"is not valid before .*: set this computer's clock", time.time() - 86400)


def test_a_bundle_that_changes_has_another_stamp(tmp_path: Path, ca: Authority, dev: Issued) -> None:
    path = tmp_path / "dev1.zip"
    assert stamp(path) == stamp(path)
    seen = [stamp(path)]
    bundle_of(path, ca, dev)
    seen.append(stamp(path))
    bundle_of(tmp_path / "new.zip", ca, dev).replace(path)
    seen.append(stamp(path))
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "dev1")
    inside = stamp(tmp_path / "dev1")
    (tmp_path / "dev1" / "client.crt").write_bytes(b"other")
    assert len(set(seen)) == 3
    assert stamp(tmp_path / "dev1") != inside
