"""The host's services cannot be reached from a sandbox, whatever they listen on, but for ports that were named."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from parallelhassnes.sandbox import network

PROBE = """
import json, socket, errno
found = {{}}
for host in {hosts}:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
            s.settimeout(5)
            s.connect((host, {port}))
            found[host] = s.recv(10).decode()
    except TimeoutError:
        found[host] = "timeout"
    except OSError as error:
        found[host] = errno.errorcode.get(error.errno, str(error))
try:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\\0{abstract}")
        found["abstract"] = s.recv(10).decode()
except OSError as error:
    found["abstract"] = errno.errorcode[error.errno]
print(json.dumps(found))
"""


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"reached")


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[int, str]]:
    """A port and an abstract name at which this host answers on every address that it has."""
    with socket.create_server(("", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        name = f"hostile-{tcp.getsockname()[1]}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        for server in (tcp, abstract):
            threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield tcp.getsockname()[1], name
        for server in (tcp, abstract):
            server.shutdown(socket.SHUT_RDWR)


def _probed(row, service, **options) -> tuple[dict, dict]:
    own = [socket.inet_ntop(socket.AF_INET, a) for a in network.own_addresses() if len(a) == 4]
    port, name = service
    program = PROBE.format(hosts=["127.0.0.1", *own], port=port, abstract=name)
    trial = row.run(f"/usr/bin/python3 -c '{program.replace(chr(39), chr(34))}'", **options)
    assert trial["said"][0]["code"] == 0, trial["said"]
    return json.loads(trial["said"][0]["out"]), trial["record"]


@pytest.mark.private_network
def test_no_service_of_the_host_is_reached(row, service):
    found, record = _probed(row, service)
    assert record["network"] == "private"
    assert set(found.values()) <= {"ECONNREFUSED", "EACCES"}, found
    assert found["127.0.0.1"] == "ECONNREFUSED"
    assert found[network.METADATA] == "EACCES"


@pytest.mark.private_network
def test_a_port_that_was_named_is_reached_and_no_other(row, service):
    found, record = _probed(row, service, host_ports=[service[0]])
    assert found.pop("127.0.0.1") == "reached"
    assert set(found.values()) <= {"ECONNREFUSED", "EACCES"}, found
    assert record["host_ports"] == [service[0]]


@pytest.mark.private_network
def test_a_network_is_joined_when_somebody_asks_for_a_socket(row, tmp_path):
    """Not before; by the agent's processes or by the verifier's alone, and it is there when the call returns."""
    look = "grep -c : /proc/net/dev"
    ask = "/usr/bin/python3 -c 'import socket; socket.socket()'"
    trial = row.run(look, ask, look)
    assert [one["out"] for one in trial["said"]] == ["1\n", None, "2\n"]
    assert trial["record"]["network_joined"] is True
    tests = f"#!/bin/bash\n{look}; {ask}; {look}; echo 0 >/logs/verifier/reward.txt\n"
    assert row.run("true", tests=tests)["stdout"] == "1\n2\n"
    idle = row.run("true", tests="#!/bin/bash\necho 0 >/logs/verifier/reward.txt\n")
    assert idle["record"]["network_joined"] is False


def test_the_hosts_network_only_where_it_is_asked_for(row, service):
    found, record = _probed(row, service, network="host")
    assert found["127.0.0.1"] == found["abstract"] == "reached"
    assert record["network"] == "host"
    assert any("the network is the host's" in line for line in record["not_isolated"])


@pytest.mark.parametrize("options", [{"network": "none"}, {"network_policy": "no-network"}])
def test_no_network_at_all(row, service, options):
    found, record = _probed(row, service, **options)
    assert found.pop("127.0.0.1") == "ECONNREFUSED"
    assert set(found.values()) <= {"ENETUNREACH", "EACCES", "ECONNREFUSED"}, found
    assert record["network"] == "none"


def _arranged(folder, agent, options: dict):
    """A trial of this agent, arranged as a worker arranges it before it runs."""
    from harbor.models.trial.config import TrialConfig
    from hostile.one_trial import environment

    from parallelhassnes.steps.trial import tampering

    said = {"name": "claude-code", "env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8765/v1"}}
    config = TrialConfig.model_validate({"task": {"path": "x"}, "agent": said})
    made = environment(folder, options)
    tampering.arrange(SimpleNamespace(agent_environment=made, agent=agent, config=config), folder)
    return made


class BaseInstalledAgent:
    """What makes an agent of Harbor's one that runs inside is that it has a class of this name among its own."""


def test_an_agent_inside_finds_its_model_on_the_hosts_loopback(tmp_path):
    assert _arranged(tmp_path / "1", BaseInstalledAgent(), {}).host_ports == [8765]
    assert _arranged(tmp_path / "2", object(), {}).host_ports == []


def test_where_pasta_is_missing_who_needs_a_network_is_refused(monkeypatch, tmp_path):
    """Before anything starts, in one line, with both ways out."""
    from harbor.environments.base import SandboxBuildFailedError

    monkeypatch.setattr(network.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SandboxBuildFailedError) as caught:
        _arranged(tmp_path / "1", BaseInstalledAgent(), {})
    why = str(caught.value)
    for part in ("claude-code", "apt-get install passt", "network: host"):
        assert part in why
    assert "\n" not in why
    assert _arranged(tmp_path / "2", object(), {})._network == "none"
    assert _arranged(tmp_path / "3", BaseInstalledAgent(), {"network": "host"})._network == "host"


def test_only_urls_of_the_loopback_open_a_port():
    values = [
        "http://127.0.0.1:8080/v1",
        "https://localhost/x",
        "http://10.0.0.1:99",
        "127.0.0.1:5",
        7,
        "http://[::1]:81",
    ]
    assert network.local_ports(values) == [81, 443, 8080]
