"""The network as EC2 describes it: botocore-shaped dicts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tests.standins.aws.network import Interface, Network, Rule, SecurityGroup

Answer = dict[str, object]


def security_groups(network: Network, account: str) -> list[Answer]:
    """DescribeSecurityGroups."""
    return [_group(group, account) for group in network.groups.values()]


def instances(network: Network, account: str) -> list[Answer]:
    """DescribeInstances: a reservation for each."""
    ids = dict.fromkeys(interface.instance for interface in network.interfaces if interface.instance is not None)
    return [
        {
            "ReservationId": f"r-{instance.removeprefix('i-')}",
            "OwnerId": account,
            "Instances": [_instance(network, instance)],
        }
        for instance in ids
    ]


def addresses(network: Network) -> list[Answer]:
    """DescribeAddresses: the Elastic IPs."""
    return [_address(network, public, allocation) for public, allocation in network.elastic.items()]


def filtered(
    found: list[Answer], filters: Iterable[Mapping[str, object]], values_of: Mapping[str, Callable[[Answer], list[str]]]
) -> list[Answer]:
    """Keep what every filter lets through; raises KeyError for a filter that is not served here."""
    for wanted in filters:
        values, read = wanted.get("Values", []), values_of[str(wanted["Name"])]
        found = [answer for answer in found if isinstance(values, list) and set(values) & set(read(answer))]
    return found


def _group(group: SecurityGroup, account: str) -> Answer:
    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.name,
        "OwnerId": account,
        "VpcId": group.vpc,
        "IpPermissions": _permissions(group.inbound, account),
        "IpPermissionsEgress": _permissions(group.outbound, account),
        "Tags": [],
    }


def _permissions(rules: Iterable[Rule], account: str) -> list[Answer]:
    """Join rules of the same protocol and ports to one permission, as EC2 does."""
    found: dict[tuple[str, int, int], list[str]] = {}
    for rule in rules:
        found.setdefault((rule.protocol, rule.first, rule.last), []).append(rule.peer)
    answers: list[Answer] = []
    for (protocol, first, last), peers in found.items():
        answer: Answer = {
            "IpProtocol": protocol,
            "IpRanges": [{"CidrIp": peer} for peer in peers if "/" in peer and ":" not in peer],
            "Ipv6Ranges": [{"CidrIpv6": peer} for peer in peers if ":" in peer],
            "UserIdGroupPairs": [{"GroupId": peer, "UserId": account} for peer in peers if peer.startswith("sg-")],
            "PrefixListIds": [{"PrefixListId": peer} for peer in peers if peer.startswith("pl-")],
        }
        if protocol != "-1":
            answer |= {"FromPort": first, "ToPort": last}
        answers.append(answer)
    return answers


def _instance(network: Network, instance: str) -> Answer:
    interfaces = network.of_instance(instance)
    answer: Answer = {
        "InstanceId": instance,
        "InstanceType": "t4g.nano",
        "State": {"Code": 16, "Name": "running"},
        "VpcId": interfaces[0].vpc,
        "PrivateIpAddress": interfaces[0].address,
        "SecurityGroups": _identifiers(network, interfaces[0]),
        "NetworkInterfaces": [
            {
                "NetworkInterfaceId": interface.id,
                "MacAddress": interface.mac,
                "PrivateIpAddress": interface.address,
                "VpcId": interface.vpc,
                "Groups": _identifiers(network, interface),
                "Attachment": {"DeviceIndex": number, "Status": "attached"},
                **({"Association": {"PublicIp": interface.public}} if interface.public else {}),
            }
            for number, interface in enumerate(interfaces)
        ],
    }
    if interfaces[0].public:
        answer["PublicIpAddress"] = interfaces[0].public
    return answer


def _identifiers(network: Network, interface: Interface) -> list[Answer]:
    return [{"GroupId": group, "GroupName": network.groups[group].name} for group in interface.groups]


def _address(network: Network, public: str, allocation: str) -> Answer:
    answer: Answer = {"PublicIp": public, "AllocationId": allocation, "Domain": "vpc"}
    for interface in network.interfaces:
        if interface.public == public:
            answer |= {
                "AssociationId": allocation.replace("eipalloc", "eipassoc"),
                "NetworkInterfaceId": interface.id,
                "PrivateIpAddress": interface.address,
            }
            if interface.instance is not None:
                answer["InstanceId"] = interface.instance
    return answer
