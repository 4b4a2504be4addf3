"""Whether what clients dial is this instance: public_host and public_ip against the addresses it has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from natproxy.config import Config
from natproxy.config.addresses import as_numeric
from natproxy.discover.fields import Fields, Raw
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.groups import in_region
from natproxy.doctor.instance import Instance


@dataclass(frozen=True, slots=True)
class Owners:
    """What EC2 says of the addresses that clients dial; None = it could not be asked."""

    elastic_ips: Sequence[Raw] | None = None
    instances: Sequence[Raw] | None = None


def dialled_addresses(config: Config, resolved: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses that clients dial, or are told. ``resolved``: what public_host resolves to."""
    return tuple(dict.fromkeys((*resolved, *([config.public_ip] if config.public_ip else ()))))


def public_address_findings(
    config: Config,
    resolved: Sequence[str],
    reason: str,
    *,
    instance: Instance | None,
    owners: Owners,
    region: str,
) -> list[Finding]:
    """Judge the name, and each address that clients dial, which takes an instance that knows its own.

    ``reason``: why public_host does not resolve; empty where it does.
    """
    if config.is_loopback_only or (config.public_host is None and config.public_ip is None):
        return []
    findings = list(_names(config, resolved, reason, instance))
    if instance is None:
        return findings
    addresses = dialled_addresses(config, resolved)
    return findings + [_judged(_subject(config, one), one, instance, owners, region) for one in addresses]


def _names(config: Config, resolved: Sequence[str], reason: str, instance: Instance | None) -> Iterator[Finding]:
    """Judge the name by itself."""
    host = config.public_host
    if host is None or as_numeric(host) is not None:
        return
    if not resolved:
        mend = f"add a record for it that leads to {config.public_ip or 'this instance'}"
        yield Finding(Check.PUBLIC_ADDRESS, host, Verdict.BAD, f"public_host does not resolve: {reason}", mend)
    elif config.public_ip is not None and instance is not None and _is_inner_view(config.public_ip, resolved, instance):
        evidence = f"public_host resolves to {', '.join(resolved)} here, this instance's own private address"
        if host.endswith(".amazonaws.com"):
            evidence += ": Amazon's names do so inside the VPC"
            yield Finding(Check.PUBLIC_ADDRESS, host, Verdict.GOOD, evidence)
            return
        mend = f"look it up from outside, where it has to say {config.public_ip}: dig +short {host}"
        yield Finding(
            Check.PUBLIC_ADDRESS, host, Verdict.UNKNOWN, f"{evidence}; what clients get to see is not known here", mend
        )
    elif config.public_ip is not None and config.public_ip not in resolved:
        evidence = f"public_host resolves to {', '.join(resolved)}, and public_ip says {config.public_ip}"
        mend = "let the name's record and public_ip say the same: the address that clients are to dial"
        yield Finding(Check.PUBLIC_ADDRESS, host, Verdict.BAD, evidence, mend)


def _is_inner_view(public_ip: str, resolved: Sequence[str], instance: Instance) -> bool:
    """Tell whether a name leads to the instance that has ``public_ip``, by what DNS says inside the VPC only."""
    own = instance.with_address(public_ip)
    return own is not None and public_ip not in own.private and set(resolved) <= set(own.private)


def _subject(config: Config, address: str) -> str:
    if address in (config.public_host, config.public_ip) or config.public_host is None:
        return address
    return f"{config.public_host} {address}"


def _judged(subject: str, address: str, instance: Instance, owners: Owners, region: str) -> Finding:
    own = instance.with_address(address)
    elastic = _of_address(owners.elastic_ips, "PublicIp", address)
    if own is not None and address in own.private and ":" not in address:
        evidence = f"{address} is this instance's private address ({own.id}): for clients inside the VPC, or by a VPN"
        return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.GOOD, evidence)
    if own is not None:
        if elastic is None and owners.elastic_ips is not None and ":" not in address:
            evidence = f"{address} is this instance's, and is no Elastic IP: it changes when the instance is stopped"
            allocate = f"aws ec2 allocate-address{in_region(region)}"
            mend = f"{allocate}, associate it with {instance.id}, and write it as public_ip"
            return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.WARNING, evidence, mend)
        evidence = f"{address} is this instance's ({instance.id}, {own.id})"
        return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.GOOD, evidence)
    if elastic is not None:
        return _elsewhere(subject, address, instance, elastic, region)
    other = _of_address(owners.instances, "PublicIpAddress", address)
    if other is not None:
        evidence = f"{address} belongs to instance {other.identifier('InstanceId')}, and this is {instance.id}"
        return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.BAD, evidence, _point_at(instance))
    has = ", ".join(instance.addresses) or "none"
    known = "" if owners.elastic_ips is None else ", nor is it an Elastic IP of this account in this region"
    evidence = f"{address} is none of this instance's addresses ({instance.id} has {has}){known}"
    return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.BAD, evidence, _point_at(instance))


def _elsewhere(subject: str, address: str, instance: Instance, elastic: Fields, region: str) -> Finding:
    """Judge an Elastic IP that is not this instance's."""
    allocation = elastic.identifier("AllocationId") or "ALLOCATION"
    take = f"aws ec2 associate-address --allocation-id {allocation} --instance-id {instance.id}"
    owner, interface = elastic.identifier("InstanceId"), elastic.identifier("NetworkInterfaceId")
    if owner is not None:
        evidence = f"the Elastic IP {address} belongs to instance {owner}, and this is {instance.id}"
        mend = f"{take} --allow-reassociation{in_region(region)} (the other one loses it), or {_point_at(instance)}"
        return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.BAD, evidence, mend)
    if interface is not None:
        evidence = f"the Elastic IP {address} belongs to network interface {interface}, which is no instance's"
        mend = f"make sure that it is a load balancer that leads to {instance.id} on natproxy's ports"
        return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.WARNING, evidence, mend)
    evidence = f"the Elastic IP {address} is associated with nothing, and this is {instance.id}"
    return Finding(Check.PUBLIC_ADDRESS, subject, Verdict.BAD, evidence, f"{take}{in_region(region)}")


def _point_at(instance: Instance) -> str:
    """Say what public_host and public_ip should be."""
    public = [address for one in instance.interfaces for address in one.public]
    if public:
        return f"let public_host and public_ip lead to {', '.join(public)}"
    return f"give {instance.id} an Elastic IP (aws ec2 allocate-address, associate-address), which it has none of"


def _of_address(items: Sequence[Raw] | None, name: str, address: str) -> Fields | None:
    found = (Fields(item, set()) for item in items or ())
    return next((fields for fields in found if fields.text(name) == address), None)
