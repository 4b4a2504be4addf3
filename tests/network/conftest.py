"""The guide's network as a fixture, and the caches of its example.

``guide_network`` is the bare network; ``guide_caches`` adds the guide's three redis-servers and three memcacheds, and
``guide_aws`` an AWS and a DNS stand-in on the NAT instance that know those caches. All are new for each test. What else
a test needs it starts where it belongs, by ``guide_network.spawn``: natproxy itself in NAT, clients in LAPTOP.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.network.aws import GuideAws
from tests.network.guide import GuideCaches, GuideNetwork, why_not_here


@pytest.fixture
def guide_network() -> Iterator[GuideNetwork]:
    """The laptop, the NAT instance and the nodes, without rules or caches."""
    if (reason := why_not_here()) is not None:
        pytest.skip(reason)
    with GuideNetwork() as network:
        yield network


@pytest.fixture
def guide_caches(guide_network: GuideNetwork) -> GuideCaches:
    """Redis and memcached on 10.0.1.230, .231 and .232."""
    return guide_network.start_guide_caches()


@pytest.fixture
def guide_aws(guide_network: GuideNetwork) -> GuideAws:
    """AWS and DNS as the NAT instance sees them, with the guide's redis and memcached clusters."""
    return GuideAws(guide_network)
