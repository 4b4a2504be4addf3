"""The operations of EC2 that are served: filters and paging of the network's description. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from tests.standins.aws import networkanswers
from tests.standins.aws.keys import AwsError
from tests.standins.aws.networkanswers import Answer, filtered
from tests.standins.aws.operations import Context, Params

_GROUP_FILTERS: Mapping[str, Callable[[Answer], list[str]]] = {
    "group-id": lambda answer: [str(answer["GroupId"])],
    "vpc-id": lambda answer: [str(answer["VpcId"])],
}
_INSTANCE_FILTERS: Mapping[str, Callable[[Answer], list[str]]] = {
    "ip-address": lambda answer: [str(_only_instance(answer).get("PublicIpAddress", ""))],
    "private-ip-address": lambda answer: [str(_only_instance(answer)["PrivateIpAddress"])],
}
_ADDRESS_FILTERS: Mapping[str, Callable[[Answer], list[str]]] = {
    "public-ip": lambda answer: [str(answer["PublicIp"])],
    "instance-id": lambda answer: [str(answer.get("InstanceId", ""))],
}


def describe_security_groups(context: Context, params: Params) -> Answer:
    found = networkanswers.security_groups(context.world.network, context.world.account)
    found = _named(found, params.get("GroupIds"), lambda answer: str(answer["GroupId"]), "InvalidGroup.NotFound")
    return _page(params, "SecurityGroups", _filtered(found, params, _GROUP_FILTERS))


def describe_instances(context: Context, params: Params) -> Answer:
    found = networkanswers.instances(context.world.network, context.world.account)
    wanted = params.get("InstanceIds")
    found = _named(
        found, wanted, lambda answer: str(_only_instance(answer)["InstanceId"]), "InvalidInstanceID.NotFound"
    )
    return _page(params, "Reservations", _filtered(found, params, _INSTANCE_FILTERS))


def describe_addresses(context: Context, params: Params) -> Answer:
    found = networkanswers.addresses(context.world.network)
    found = _named(found, params.get("PublicIps"), lambda answer: str(answer["PublicIp"]), "InvalidAddress.NotFound")
    return {"Addresses": _filtered(found, params, _ADDRESS_FILTERS)}


EC2_OPERATIONS: Mapping[str, Callable[[Context, Params], Answer]] = {
    "DescribeSecurityGroups": describe_security_groups,
    "DescribeInstances": describe_instances,
    "DescribeAddresses": describe_addresses,
}


def _only_instance(reservation: Answer) -> Answer:
    return cast("list[Answer]", reservation["Instances"])[0]


def _named(found: list[Answer], wanted: object, name_of: Callable[[Answer], str], code: str) -> list[Answer]:
    """Keep what is named; EC2 refuses the whole request where one name is unknown."""
    if not isinstance(wanted, list):
        return found
    if missing := sorted(set(wanted) - set(map(name_of, found))):
        raise AwsError(400, code, f"The ID '{missing[0]}' does not exist")
    return [answer for answer in found if name_of(answer) in wanted]


def _filtered(
    found: list[Answer], params: Params, values_of: Mapping[str, Callable[[Answer], list[str]]]
) -> list[Answer]:
    filters: Any = params.get("Filters", [])
    try:
        return filtered(found, filters, values_of)
    except KeyError as error:
        raise AwsError(400, "InvalidParameterValue", f"The filter {error} is invalid") from None


def _page(params: Params, member: str, found: list[Answer]) -> Answer:
    """Cut one page; all of it where no size is asked for, as EC2 does."""
    start = int(str(params.get("NextToken", "0")))
    most = params.get("MaxResults")
    end = len(found) if most is None else start + int(str(most))
    return {member: found[start:end], **({"NextToken": str(end)} if end < len(found) else {})}
