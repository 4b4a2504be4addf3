"""natproxy.config.reading: the file as a whole."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from natproxy.config import DEFAULT_STATE_DIR, kept_until_restart, load_config, read_state_dir
from natproxy.config.reading import MAX_FILE_BYTES, RESTART_ONLY
from natproxy.errors import ConfigError
from tests.config.samples import ALLOW, load, mistakes, only_mistake

BROKEN = """public_host: not a host
listen:
  ports: 6478-6379
clients:
  allow: [198.51.100.27/24, office]
  tls: terminate
caches:
- id: My-Redis
  ports: 6379-6388
  probe: {password: hunter2-s3cret}
- tags: {a: b}
  id: b
  ports: 6388-6390
static:
- {name: legacy, port: 6388, target: "redis://:hunter2-s3cret@legacy:6379"}
timeouts:
  connect: 3
  conect: 3s
timeouts:
  idle: 1h
zzz: hunter2-s3cret
"""


def test_every_mistake_is_told_at_once_in_the_order_of_the_lines() -> None:
    assert mistakes(BROKEN) == [
        "1: public_host: must be a DNS name or an IP address",
        "3: listen.ports: runs backwards: write 6379-6478",
        (
            "5: clients.allow[0]: 198.51.100.27/24 has bits set beyond its prefix: write 198.51.100.0/24 for the whole "
            "network, or 198.51.100.27/32 for this address alone"
        ),
        "5: clients.allow[1]: must be an IP address or network such as 198.51.100.27 or 198.51.100.0/24",
        "6: clients.tls: terminate needs the section tls, with natproxy's certificate and key",
        "8: caches[0].id: AWS keeps ids in lower case: write my-redis",
        "10: caches[0].probe.password: is an unknown key; did you mean password_file?",
        "11: caches[1]: has both id and tags: write one of them",
        "13: caches[1].ports: 6388-6390 overlaps 6379-6388 of caches[0]",
        "15: static[0].target: must be host:port alone, without a scheme, a user or a password",
        "15: static[0].port: 6388 lies in 6379-6388 of caches[0]",
        "17: timeouts.connect: has no unit: write 3s for seconds (units: us, ms, s, m, h, d)",
        "18: timeouts.conect: is an unknown key; did you mean connect?",
        "19: timeouts: is written twice: first on line 16",
        (
            "21: zzz: is an unknown key; known here: clients, nodes, timeouts, rewrite, public_host, public_ip, "
            "listen, aws, caches, static, tls, workers, admin, portal, state_dir, log, resolver"
        ),
    ]


def test_nothing_is_concluded_from_a_value_that_is_wrong_itself() -> None:
    text = "listen: {{address: {}}}\nclients: {{allow: {}}}\ncaches: [{{id: a, ports: {}}}]\n"
    assert only_mistake(text.format("nowhere", "null", "1-2")).startswith("1: listen.address")
    assert only_mistake(text.format("0.0.0.0", "nobody", "1-2")).startswith("2: clients.allow")
    assert only_mistake(text.format("127.0.0.1", "null", "2-1")).startswith("3: caches[0].ports")


def test_a_problem_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text("workers: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (str(path), 1, "workers")
    assert str(caught.value) == f"{path}:1: workers: must be between 1 and 256 (or auto: one for each processor)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "1: the file is empty: it needs at least caches or static"),
        ("# nothing\n", "1: the file is empty: it needs at least caches or static"),
        ("- a\n", "1: must be a mapping (key: value)"),
        ("\n\nhunter2\n", "3: must be a mapping (key: value)"),
        ("true", "1: must be a mapping (key: value)"),
        ("a:\n\tb: 1\n", "2: not YAML: a tab, where YAML allows only spaces: indent with spaces"),
        (b"a: 1\nb: \xff\n", "2: is not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), "1: is not UTF-8 text"),
    ],
)
def test_what_is_no_config_at_all(text: str | bytes, found: str) -> None:
    assert only_mistake(text) == found


def test_a_byte_order_mark_and_dos_line_ends_do_no_harm() -> None:
    assert load(b"\xef\xbb\xbfworkers: 2\r\nlog:\r\n  level: debug\r\n").log.level == "debug"
    assert only_mistake(b"workers: 2\r\n\r\nlog: x\r\n").startswith("3: log: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.yaml", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("nul\0", "cannot be read: its name is not one a file can have"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, words: str) -> None:
    for read in (load_config, read_state_dir):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / name)
        (problem,) = caught.value.problems
        assert (problem.line, problem.path, problem.message) == (None, "", words)


def test_a_file_without_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        load_config(Path("/dev/zero"))
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        load("#" * (MAX_FILE_BYTES + 1))


def test_loading_looks_at_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("a lookup"))
    load(f"{ALLOW}public_host: cache.example\nstatic: [{{name: s, port: 1, target: 'legacy.internal:6379'}}]")


SECRET = "hunter2 S3CRET"


@pytest.mark.parametrize(
    "text",
    [
        "{0}",
        "- {0}",
        "password {0}: x: y",
        "secret: {0}",
        "secret: '{0}\n",
        "secret: !{0}",
        "secret: *{0}",
        "listen: {0}",
        "listen: {{address: {0}}}",
        "listen: {{ports: {0}}}",
        "aws: {{region: {0}, role_arn: {0}, endpoint_url: 'http://me:{0}@aws', refresh: {0}}}",
        "aws: {{endpoint_url: 'http://[{0}'}}",
        "clients: {{allow: [{0}, '{0}/24', '1.2.3.4/{0}'], tls: {0}, max_connections: {0}, certificates: {0}}}",
        "caches: [{{id: {0}, tags: [{0}], ports: {0}, endpoints: {0}, probe: {{password: {0}}}}}]",
        "caches: [{{id: a, rewrite: {0}, probe: {{username: ' {0}', password_file: {0}, secret_arn: {0}}}}}]",
        "static: [{{name: {0}, port: {0}, target: 'redis://:{0}@legacy:6379'}}]",
        "static: [{{name: a, port: 1, target: 'me:{0}@legacy:6379'}}, {{name: a, port: 2, target: 'legacy:{0}'}}]",
        "{{workers: {0}, admin: {0}, state_dir: {0}, log: {{level: {0}, format: {0}}}, resolver: {0}, tls: {0}}}",
        "tls: {{certificate: {0}, key: {0}, client_ca: {0}, crl: {0}, min_version: {0}}}",
        "nodes: {{ca: {0}, server_name: {0}, tls: {0}}}\nclients: {{certificates: ['*{0}', '{0}*', ' {0}']}}",
        "clients: {{certificates: {0}}}\ncaches: [{{id: a, ports: 1, clients: {{certificates: '{0} too'}}}}]",
        'tls: {{certificate: /x, key: "-----BEGIN PRIVATE KEY-----\\n{0}\\n"}}',
        "public_host: 'https://{0}@host'",
    ],
)
def test_no_error_repeats_what_may_be_a_secret(text: str) -> None:
    said = "\n".join(mistakes(text.format(SECRET)))
    assert "hunter2" not in said.lower()
    assert "s3cret" not in said.lower()


# ---- reload ----


OLD = f"""{ALLOW}
caches: [{{id: a, ports: 6379-6388}}]
listen: {{address: 0.0.0.0, ports: 7000-7009}}
"""
NEW = """
clients: {allow: [192.0.2.0/24], tls: passthrough, max_connections: 5}
caches: [{id: b, ports: 6379-6388}]
static: [{name: s, port: 6400, target: "h:1"}]
listen: {address: 10.0.0.55, ports: 7010-7019}
aws: {region: eu-west-1, endpoint_url: "http://127.0.0.1:1", role_arn: "arn:aws:iam::123456789012:role/r", refresh: 1s}
workers: 4
admin: {address: "::1", port: 9999, allow: "::1", tls: true}
portal: {}
state_dir: /elsewhere
timeouts: {drain: 1s}
log: {level: debug}
resolver: 10.0.0.2
public_host: cache.example
tls: {certificate: /new.crt, key: /new.key, client_ca: /new-clients.crt, min_version: 1.3}
nodes: {tls: on, ca: /nodes.crt}
rewrite: off
"""


def test_a_reload_changes_all_but_what_waits_for_a_restart() -> None:
    old, new = load(OLD), load(NEW)
    mixed, waiting = kept_until_restart(old, new)
    assert waiting == (
        "listen.address",
        "aws.region",
        "aws.endpoint_url",
        "aws.role_arn",
        "workers",
        "admin.address",
        "admin.port",
        "admin.allow",
        "admin.tls",
        "portal",
        "state_dir",
    )
    assert (mixed.listen.address, mixed.listen.ports) == (old.listen.address, new.listen.ports)
    assert mixed.aws == old.aws.model_copy(update={"refresh": 1.0})
    assert (mixed.workers, mixed.admin, mixed.state_dir) == (old.workers, old.admin, old.state_dir)
    assert mixed.portal is None
    for name in (
        "clients",
        "caches",
        "static",
        "timeouts",
        "log",
        "resolver",
        "public_host",
        "nodes",
        "rewrite",
        "tls",
        "warnings",
        "path",
    ):
        assert getattr(mixed, name) == getattr(new, name)


def test_a_reload_that_changes_nothing_waits_for_nothing() -> None:
    old = load(OLD)
    assert kept_until_restart(old, old) == (old, ())


@pytest.mark.parametrize("place", RESTART_ONLY)
def test_what_waits_for_a_restart_is_named_alone(place: tuple[str, ...]) -> None:
    old, other = load(OLD), load(NEW)
    if len(place) == 2:
        part = getattr(old, place[0]).model_copy(update={place[1]: getattr(getattr(other, place[0]), place[1])})
    else:
        part = getattr(other, place[0])
    new = old.model_copy(update={place[0]: part})
    assert kept_until_restart(old, new) == (old, (".".join(place),))


def test_a_reload_to_loopback_without_allow_does_not_open_the_old_addresses_to_everyone() -> None:
    new = load("listen: {address: 127.0.0.1}\ncaches: [{id: a, ports: 1-2}]")
    with pytest.raises(ConfigError) as caught:
        kept_until_restart(load(OLD), new)
    (problem,) = caught.value.problems
    assert problem.path == "caches[0]"
    assert problem.message.startswith("everyone who reaches 0.0.0.0 could connect")
    assert problem.message.endswith("(listen.address will only change with a restart)")


def test_a_reload_to_loopback_without_allow_may_demand_certificates_instead() -> None:
    text = "listen: {address: 127.0.0.1}\ncaches: [{id: a, ports: 1-2}]\n"
    mixed, waiting = kept_until_restart(
        load(OLD), load(text + "tls: {certificate: /x.crt, key: /x.key, client_ca: /c.crt}")
    )
    assert (waiting, mixed.listen.address) == (("listen.address",), ("0.0.0.0",))
    with pytest.raises(ConfigError, match=r"everyone who reaches 0\.0\.0\.0 could connect"):
        kept_until_restart(load(OLD), load(text + "tls: {certificate: /x.crt, key: /x.key}"))


def test_a_reload_that_no_longer_demands_certificates_needs_allow() -> None:
    tls, caches = "tls: {certificate: /x.crt, key: /x.key, client_ca: /c.crt}\n", "caches: [{id: a, ports: 1-2}]\n"
    old = load(tls + caches)
    with pytest.raises(ConfigError, match=r"caches\[0\]: everyone who reaches 0.0.0.0 could connect"):
        kept_until_restart(old, load("listen: {address: 127.0.0.1}\n" + caches))
    assert kept_until_restart(old, load(ALLOW + caches))[0].tls is None


def test_a_reload_cannot_give_away_the_port_that_the_admin_side_still_has() -> None:
    new = load(f"{ALLOW}admin: {{port: 9999}}\ncaches: [{{id: a, ports: 9479}}]")
    with pytest.raises(ConfigError, match=r"9479 takes in 9479, the admin side's port \(admin.port will only change"):
        kept_until_restart(load(OLD), new)


def test_a_reload_cannot_take_the_ca_away_that_the_portal_still_demands_certificates_by() -> None:
    tls = "tls: {certificate: /x.crt, key: /x.key%s}\n"
    old = load(tls % ", client_ca: /c.crt" + "portal: {}\n")
    with pytest.raises(ConfigError, match=r"portal: needs .* and tls.client_ca.* \(portal will only change with a"):
        kept_until_restart(old, load(tls % ""))
    old = load(tls % ", client_ca: /c.crt" + "admin: {tls: true}\n")
    with pytest.raises(ConfigError, match=r"admin.tls: true needs .* \(admin.tls will only change with a restart\)"):
        kept_until_restart(old, load(tls % ""))


def test_a_portal_that_was_not_there_may_be_switched_off() -> None:
    old = load("portal: null")
    assert kept_until_restart(old, load("portal: {port: null}"))[1] == ()


# ---- where the state is ----


@pytest.mark.parametrize(
    ("text", "state_dir"),
    [
        ("state_dir: /a", "/a"),
        ('state_dir: "/a b"  # here', "/a b"),
        ("caches: [{id: x}]\nstate_dir: /a # here\nworkers: 0", "/a"),
        ("state_dir: /a\nb: 'never closed", "/a"),
        ('a: \'never closed\nstate_dir: "/a b"\n', "/a b"),
        ("a: [\nstate_dir: '/a'\n", "/a"),
        ("a:\n\t- x\nstate_dir: /a\r\n", "/a"),
        ("a: [\nstate_dir: /a#b # here\n", "/a"),
        ("state_dir: relative", None),
        ("state_dir:", None),
        ("state_dir: [/a]", None),
        ("a: |\n  state_dir: /a\n", None),
        ("a: [\n  state_dir: /a", None),
        ("a: [\nstate_dir: relative", None),
        ("- a", None),
        ("", None),
    ],
)
def test_the_state_is_found_however_broken_the_rest_is(tmp_path: Path, text: str, state_dir: str | None) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text(text)
    assert read_state_dir(path) == (DEFAULT_STATE_DIR if state_dir is None else Path(state_dir))
