from __future__ import annotations

import pytest

from tests.standins.aws.names import CacheNames, short_region


@pytest.mark.parametrize(
    ("region", "short"),
    [
        ("us-east-1", "use1"),
        ("eu-west-3", "euw3"),
        ("ap-southeast-2", "apse2"),
        ("ap-northeast-1", "apne1"),
        ("eu-central-1", "euc1"),
        ("us-gov-west-1", "usgovw1"),
    ],
)
def test_regions_are_shortened(region: str, short: str) -> None:
    assert short_region(region) == short


def test_names_have_two_forms() -> None:
    plain, tls = (CacheNames("g", "x1", "eu-west-1", has_tls) for has_tls in (False, True))
    end = "euw1.cache.amazonaws.com"
    assert (plain.primary(), tls.primary()) == (f"g.x1.ng.0001.{end}", f"master.g.x1.{end}")
    assert (plain.reader(), tls.reader()) == (f"g-ro.x1.ng.0001.{end}", f"replica.g.x1.{end}")
    assert (plain.member("g-001"), tls.member("g-001")) == (f"g-001.x1.0001.{end}", f"g-001.g.x1.{end}")
    assert (plain.configuration(), tls.configuration()) == (f"g.x1.clustercfg.{end}", f"clustercfg.g.x1.{end}")
    assert (plain.numbered("0002"), tls.numbered("0002")) == (f"g.x1.0002.{end}", f"0002.g.x1.{end}")
    assert ".cfg." in tls.memcached_configuration()
    assert tls.serverless() == f"g-x1.serverless.{end}"
