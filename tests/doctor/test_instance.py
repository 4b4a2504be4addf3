from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from natproxy.doctor import instance
from natproxy.doctor.instance import Instance, Interface, source_address, this_instance
from tests.discover.conftest import use_environ
from tests.standins.aws import AwsServer, AwsWorld
from tests.standins.aws.network import NATPROXY_GROUP, THIS_INSTANCE, VPC


@pytest.fixture
def on_instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    with AwsServer(AwsWorld()) as aws:
        use_environ(monkeypatch, aws.instance_environ)
        yield aws


def test_the_guide_s_instance(on_instance: AwsServer) -> None:
    found = this_instance()
    assert found == Instance(
        THIS_INSTANCE,
        "us-east-1",
        (Interface("eni-0a1b2c3d4e5f60755", (NATPROXY_GROUP,), ("10.0.0.55",), ("203.0.113.73",), VPC),),
    )
    assert found.addresses == ("203.0.113.73", "10.0.0.55")
    assert found.with_address("203.0.113.73") is found.with_address("10.0.0.55") is found.interfaces[0]
    assert found.with_address("10.0.0.56") is None
    assert on_instance.calls("imds")[0].params["method"] == "PUT"  # version 2


def test_two_interfaces_the_primary_one_first(on_instance: AwsServer) -> None:
    on_instance.world.network.add_interface(0x11, "10.0.1.55", THIS_INSTANCE)
    on_instance.world.network.associate("203.0.113.73", None)
    found = this_instance()
    assert found is not None
    assert [one.private for one in found.interfaces] == [("10.0.0.55",), ("10.0.1.55",)]
    assert found.addresses == ("10.0.0.55", "10.0.1.55")


@pytest.mark.parametrize("fault", ["server-error", "reset", "close", "html", "empty", "denied"])
def test_metadata_that_are_no_good(on_instance: AwsServer, fault: str) -> None:
    on_instance.fault("imds", fault, times=None)  # type: ignore[arg-type]
    assert this_instance() is None


def test_metadata_that_say_nothing_in_time(on_instance: AwsServer) -> None:
    on_instance.fault("imds", "hang", times=None)
    assert this_instance() is None


def test_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    use_environ(monkeypatch, {"AWS_EC2_METADATA_DISABLED": "true"})
    assert this_instance() is None
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = "http://{}:{}/".format(*unused.getsockname())
        use_environ(monkeypatch, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": address})
        assert this_instance() is None


def test_the_address_that_is_dialled_from() -> None:
    assert source_address("127.0.0.9") == "127.0.0.1"
    assert source_address("::1") in ("::1", "")
    assert source_address("255.255.255.255") == ""


def test_ids_that_could_do_harm_in_a_command_are_left_out() -> None:
    answers = {
        "/latest/api/token": "token",
        "instance-id": "i-0123456789abcdef0",
        "mac": "0e:00",
        "network/interfaces/macs": "0e:00/",
        "network/interfaces/macs/0e:00/interface-id": "eni-1;id",
        "network/interfaces/macs/0e:00/security-group-ids": "sg-1\nsg-2;id\n$(id)",
        "network/interfaces/macs/0e:00/local-ipv4s": "10.0.0.55",
        "placement/region": "`id`",
    }
    found = instance._read(lambda path, _: answers.get(path))
    assert found.interfaces == (Interface("an interface", ("sg-1",), ("10.0.0.55",)),)
    assert found.region == ""
