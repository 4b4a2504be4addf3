"""The files for AWS grant what natproxy calls and nothing else, and say so everywhere alike."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
import yaml

ROOT = Path(__file__).parents[1]
AWS = ROOT / "ansible/examples/aws"
TEMPLATE = AWS / "cloudformation.yaml"
ANSIBLE = ROOT / ".venv/ansible"

SERVICES = ("elasticache", "secretsmanager", "ec2", "sts")
"""All that natproxy has clients of."""
GRANTED_ELSEWHERE = {
    "sts:GetCallerIdentity": "AWS asks nobody for a permission to say who they are",
    "sts:AssumeRole": "only where the config has aws.role_arn: it is on that role, and this policy is then that role's",
}
STATEMENTS = ("Discovery", "Tags", "Doctor", "Secrets")
LISTED = ("replicationgroup:*", "cluster:*", "serverlesscache:*")

Statement = Mapping[str, Any]


class _Template(yaml.SafeLoader):
    """Reads CloudFormation's short forms as what they stand for."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    if isinstance(node, yaml.MappingNode):
        return {name: loader.construct_mapping(node, deep=True)}
    assert isinstance(node, yaml.ScalarNode)
    return {name: loader.construct_scalar(node)}


_Template.add_multi_constructor("!", _short_form)


def template() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(TEMPLATE.read_text(encoding="utf-8"), _Template)  # a SafeLoader
    return loaded


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def policy_statements() -> list[Statement]:
    document = json.loads((AWS / "policy.json").read_text(encoding="utf-8"))
    assert document["Version"] == "2012-10-17"
    return list(document["Statement"])


def template_statements() -> list[Statement]:
    """Return the statements as they are where every condition holds."""
    written = template()["Resources"]["Policy"]["Properties"]["PolicyDocument"]["Statement"]
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in written]


def actions_by_statement(statements: list[Statement]) -> dict[str, set[str]]:
    return {one["Sid"]: set(listed(one["Action"])) for one in statements}


def readme_statements() -> dict[str, set[str]]:
    rows = re.findall(
        r"^ *\| `(\w+)` \| ((?:`[a-z0-9]+:\w+`(?:, )?)+) \|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    return {name: set(re.findall(r"`([^`]+)`", actions)) for name, actions in rows}


def called() -> set[str]:
    """Return every operation of AWS whose method's name stands in the code, as an attribute or as text."""
    session = botocore.session.get_session()
    operations = {
        botocore.xform_name(operation): f"{service}:{operation}"
        for service in SERVICES
        for operation in session.get_service_model(service).operation_names
    }
    return {operations[name] for name in names_in_the_code() if name in operations}


def names_in_the_code() -> Iterator[str]:
    for path in (ROOT / "natproxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                yield node.attr
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def clients_in_the_code() -> set[str]:
    """Return the names of AWS's services that stand in the code as text."""
    known = set(botocore.session.get_session().get_available_services())
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "natproxy").rglob("*.py"))
    calls = (node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    clients = (call for call in calls if isinstance(call.func, ast.Attribute) and "client" in call.func.attr)
    words = (word.value for call in clients for word in call.args if isinstance(word, ast.Constant))
    return {word for word in words if isinstance(word, str) and word in known}


def test_the_policy_grants_every_action_that_natproxy_calls_and_no_other() -> None:
    calls = called()
    assert {"elasticache:DescribeCacheClusters", *GRANTED_ELSEWHERE} <= calls
    granted = set().union(*actions_by_statement(policy_statements()).values())
    assert granted == calls - set(GRANTED_ELSEWHERE)


def test_natproxy_has_no_client_of_a_service_that_is_not_looked_at() -> None:
    assert "elasticache" in clients_in_the_code() <= set(SERVICES)


def test_the_readme_the_policy_and_the_template_grant_the_same_actions_in_the_same_statements() -> None:
    assert tuple(one["Sid"] for one in policy_statements()) == STATEMENTS
    wanted = actions_by_statement(policy_statements())
    assert actions_by_statement(template_statements()) == wanted
    assert readme_statements() == wanted


@pytest.mark.parametrize("statements", [policy_statements, template_statements])
def test_nothing_is_granted_on_more_than_it_needs(statements: Any) -> None:
    by_name = {one["Sid"]: one for one in statements()}
    for name in ("Discovery", "Tags"):
        resources = [str(one.get("Fn::Sub") if isinstance(one, dict) else one) for one in by_name[name]["Resource"]]
        assert tuple(":".join(one.split(":")[-2:]) for one in resources) == LISTED
        assert all(":elasticache:" in one for one in resources)
    assert by_name["Doctor"]["Resource"] == "*"  # EC2's describe calls know nothing narrower
    assert by_name["Secrets"]["Resource"] not in ("*", ["*"])
    assert all(one["Effect"] == "Allow" for one in by_name.values())
    assert not [action for one in by_name.values() for action in listed(one["Action"]) if "*" in action]


def test_the_template_s_statements_can_be_left_out_one_by_one() -> None:
    written = template()["Resources"]["Policy"]["Properties"]["PolicyDocument"]["Statement"]
    left_out = {one["Fn::If"][1]["Sid"]: one["Fn::If"] for one in written if "Fn::If" in one}
    assert set(left_out) == {"Tags", "Doctor", "Secrets"}
    assert all(parts[2] == {"Ref": "AWS::NoValue"} for parts in left_out.values())
    assert len({parts[0] for parts in left_out.values()}) == 3
    assert {parts[0] for parts in left_out.values()} <= set(template()["Conditions"])


def test_the_instance_is_open_to_developers_and_prometheus_only_and_may_reach_caches_and_https_only() -> None:
    group = template()["Resources"]["InstanceSecurityGroup"]["Properties"]
    inbound = [one["Fn::If"][1] if "Fn::If" in one else one for one in group["SecurityGroupIngress"]]
    assert [(one["FromPort"]["Ref"], one["CidrIp"]["Ref"]) for one in inbound] == [
        ("FirstPort", "DeveloperCidr"),
        ("FirstMemcachedPort", "DeveloperCidr"),
        ("PortalPort", "DeveloperCidr"),
        ("AdminPort", "PrometheusCidr"),
    ]
    assert {one["IpProtocol"] for one in inbound} == {"tcp"}
    outbound = [one["Fn::If"][1] if "Fn::If" in one else one for one in group["SecurityGroupEgress"]]
    everywhere = [one for one in outbound if "CidrIp" in one]
    assert [(one["FromPort"], one["ToPort"]) for one in everywhere] == [(443, 443)]
    to_caches = [one["DestinationSecurityGroupId"] for one in outbound if one not in everywhere]
    assert to_caches == [{"Ref": "CachesSecurityGroupId"}] * 2


def test_the_caches_let_the_instance_s_group_in_and_nobody_else() -> None:
    rules = [one["Properties"] for one in template()["Resources"].values() if one["Type"].endswith("GroupIngress")]
    assert len(rules) == 2
    for rule in rules:
        assert rule["GroupId"] == {"Ref": "CachesSecurityGroupId"}
        assert rule["SourceSecurityGroupId"] == {"Ref": "InstanceSecurityGroup"}
        assert not {"CidrIp", "CidrIpv6", "SourcePrefixListId"} & rule.keys()


@pytest.mark.parametrize("name", ["DeveloperCidr", "PrometheusCidr"])
def test_a_network_that_is_let_in_cannot_be_the_whole_internet(name: str) -> None:
    pattern = template()["Parameters"][name]["AllowedPattern"]
    assert re.fullmatch(pattern, "198.51.100.27/32")
    assert re.fullmatch(pattern, "10.0.0.0/8")
    assert not re.fullmatch(pattern, "0.0.0.0/0")
    assert not re.fullmatch(pattern, "198.51.100.27")
    assert "Default" not in template()["Parameters"]["DeveloperCidr"]


def test_descriptions_have_only_characters_that_ec2_takes() -> None:
    """Source: the Description of IpRange, and GroupDescription, in EC2's API reference."""
    group = template()["Resources"]["InstanceSecurityGroup"]["Properties"]
    rules = [*group["SecurityGroupIngress"], *group["SecurityGroupEgress"]]
    written = [
        group["GroupDescription"],
        *((one["Fn::If"][1] if "Fn::If" in one else one)["Description"] for one in rules),
    ]
    for text in written:
        assert re.fullmatch(r"[A-Za-z0-9 ._:/()#,@\[\]+=&;{}!$*-]{1,255}", text), text


def test_every_parameter_is_documented_used_and_shown_in_a_group() -> None:
    loaded = template()
    rest = json.dumps([loaded["Conditions"], loaded["Resources"]])
    groups = loaded["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(loaded["Parameters"])
    for name, parameter in loaded["Parameters"].items():
        assert parameter["Description"]
        assert f'{{"Ref": "{name}"}}' in rest, f"{name} is not used"


@pytest.mark.skipif(not (ANSIBLE / ".installed").exists(), reason="cfn-lint is not installed: make ansible")
def test_cfn_lint_finds_nothing_in_the_template() -> None:
    argv = [str(ANSIBLE / "bin/cfn-lint"), "--non-zero-exit-code", "informational", str(TEMPLATE)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
