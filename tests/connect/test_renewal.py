from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from natproxy.connect import renewal as module
from natproxy.connect.papers import read_papers
from natproxy.connect.renewal import Renewal
from tests.connect.bundles import bundle_of
from tests.standins.certificates import Authority, Issued


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def dev(ca: Authority) -> Issued:
    return ca.issue("dev1", usage="client")


@pytest.fixture
def bundle(tmp_path: Path, ca: Authority, dev: Issued) -> Path:
    return bundle_of(tmp_path / "dev1.zip", ca, dev)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def renewal(bundle: Path, said: list[str]) -> Renewal:
    papers = read_papers(bundle, time.time())
    return Renewal(papers, lambda event, line: said.append(f"{event}: {line}"))


def test_another_bundle_is_taken_up_and_the_same_one_is_not(
    renewal: Renewal, said: list[str], bundle: Path, ca: Authority, dev: Issued
) -> None:
    assert not renewal.look_at_bundle()
    bundle_of(bundle, ca, dev, host="other.example.com")
    assert not renewal.look_at_bundle()
    assert said == []
    bundle_of(bundle, ca, ca.issue("dev1-anew", usage="client"))
    assert renewal.look_at_bundle()
    assert not renewal.look_at_bundle()
    assert renewal.papers.name == "dev1-anew"
    assert [line.partition(", valid")[0] for line in said] == ["renewed: the new bundle is taken up: dev1-anew"]


@pytest.mark.parametrize("is_removed", [False, True], ids=["half", "removed"])
def test_a_bundle_that_was_not_taken_up_and_is_well_again_is_told_of_once(
    renewal: Renewal, said: list[str], bundle: Path, is_removed: bool
) -> None:
    whole = bundle.read_bytes()
    for half in (whole[:100], whole[:200]):
        if is_removed:
            bundle.unlink(missing_ok=True)
        else:
            bundle.write_bytes(half)
        assert not renewal.look_at_bundle()
    assert len(said) == 1
    assert said[0].startswith("trouble: the bundle has changed and is not taken up: ")
    bundle.write_bytes(whole)
    assert not renewal.look_at_bundle()
    bundle.write_bytes(whole)
    assert not renewal.look_at_bundle()
    assert said[1:] == [f"healed: the bundle {bundle} can be read again, and is the one in use"]


def test_a_new_bundle_after_half_of_it_ends_that_trouble_too(
    renewal: Renewal, said: list[str], bundle: Path, ca: Authority
) -> None:
    bundle.write_bytes(b"half of it")
    assert not renewal.look_at_bundle()
    bundle_of(bundle, ca, ca.issue("dev1", usage="client"))
    assert renewal.look_at_bundle()
    assert said[1] == f"healed: the bundle {bundle} can be read again"
    assert said[2].startswith("renewed: ")


def test_a_certificate_s_end_is_told_once_when_it_is_near(
    renewal: Renewal, said: list[str], bundle: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewal.look_at_dates()
    assert said == []
    soon = datetime.now(UTC) + timedelta(days=6)
    bundle_of(bundle, ca, ca.issue("dev1", usage="client", not_after=soon))
    assert renewal.look_at_bundle()
    renewal.look_at_dates()
    assert [line.partition(":")[0] for line in said] == ["renewed", "expiring"]
    assert f"the certificate of dev1 ends on {soon:%Y-%m-%d}" in said[1]
    bundle_of(bundle, ca, ca.issue("dev1", usage="client"))
    assert renewal.look_at_bundle()
    renewal.look_at_dates()
    assert len(said) == 3
    monkeypatch.setattr(module, "SOON_SECONDS", 400 * 86400)
    renewal.look_at_dates()
    assert len(said) == 4
