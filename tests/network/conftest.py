"""The guide's network as a fixture, and the caches of its example.

``guide_network`` is the bare network; ``guide_caches`` adds the guide's three redis-servers and three memcacheds, and
``guide_aws`` an AWS and a DNS stand-in on the NAT instance that know those caches. All are new for each test. What else
a test needs it starts where it belongs, by ``guide_network.spawn``: clients in LAPTOP, for instance.

``start_natproxy`` starts natproxy on the NAT instance, with the config that the guide's reader would write but for the
keys that it is given; ``guide_natproxy`` is that one, started. Both have the guide's caches to talk to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.network.aws import GuideAws
from tests.network.guide import GuideCaches, GuideNetwork, why_not_here
from tests.network.natproxy import ROUTES, GuideProxy


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


StartNatproxy = Callable[..., GuideProxy]


@pytest.fixture
def start_natproxy(
    guide_network: GuideNetwork,
    guide_aws: GuideAws,
    guide_caches: GuideCaches,
) -> Iterator[StartNatproxy]:
    """natproxy, once for each call; at the end it is stopped and has to have done well."""
    with contextlib.ExitStack() as stack:

        def start(*, routes: int = ROUTES, **config: object) -> GuideProxy:
            proxy = GuideProxy(guide_network, guide_aws, config, routes=routes)
            stack.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture
def guide_natproxy(start_natproxy: StartNatproxy) -> GuideProxy:
    """natproxy with nothing but the guide's config."""
    return start_natproxy()
