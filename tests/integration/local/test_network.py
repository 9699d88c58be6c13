"""Outward by default, never to the host's loopback or link-local addresses; not at all when that is asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nexus.adapters.providers.local import LocalProvider, network
from nexus.domain.provider import Observed
from tests.integration.local.conftest import MakeSpec, Run

CONNECT = """
import socket, sys
for host in {hosts!r}:
    try:
        with socket.create_connection((host, {port}), timeout=3) as there:
            print(host, there.recv(64).decode())
    except OSError as error:
        print(host, type(error).__name__, error.errno)
"""
UNREACHABLE = 101


@contextmanager
def serving(address: str) -> Iterator[int]:
    """A server that greets; its port."""
    with socket.create_server((address, 0)) as server:

        def greet() -> None:
            try:
                while True:
                    with server.accept()[0] as connection:
                        connection.send(b"hello")
            except OSError:
                return

        thread = threading.Thread(target=greet)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def own_address() -> str:
    """An address of this machine that is not on its loopback: outward, as seen from a sandbox."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            address: str = probe.getsockname()[0]
        except OSError:
            pytest.fail("This test needs a machine with a network address: ip addr add 192.0.2.2/24 dev …")
    assert not address.startswith("127.")
    return address


@pytest.fixture
def online(provider: LocalProvider, make_spec: MakeSpec) -> Observed:
    if network.program() is None:
        pytest.fail("slirp4netns is missing, or /dev/net/tun is not usable: apt-get install slirp4netns")
    observed = provider.ensure(make_spec())
    assert observed.notes == ()
    return observed


def test_outward(online: Observed, run: Run) -> None:
    address = own_address()
    with serving(address) as port:
        result = run(online.ref, CONNECT.format(hosts=[address], port=port))
    assert result.stdout.decode().split("\n")[0] == f"{address} hello", result


def test_the_hosts_loopback_and_link_local_are_out_of_reach(online: Observed, run: Run) -> None:
    with serving("127.0.0.1") as port:
        hosts = ["10.0.2.2", "10.0.2.3", "169.254.169.254", "169.254.0.1", "127.0.0.1"]
        result = run(online.ref, CONNECT.format(hosts=hosts, port=port))
    told = dict(line.split(" ", 1) for line in result.stdout.decode().splitlines())
    assert "hello" not in result.stdout.decode()
    for host in hosts[1:4]:
        assert told[host] == f"OSError {UNREACHABLE}", told


def test_of_the_resolver_only_dns_can_be_reached(online: Observed, run: Run) -> None:
    """The user-space network maps every port of this address to the host's resolver, which may be on its loopback."""
    result = run(
        online.ref, "ip route get 10.0.2.3 ipproto udp dport 53; ip route get 10.0.2.3 ipproto tcp dport 5432", "bash"
    )
    assert b"dev tap0" in result.stdout, result
    assert b"unreachable" in result.stderr.lower(), result


def test_names_are_resolved_through_the_host(online: Observed, run: Run) -> None:
    result = run(online.ref, "print(open('/etc/resolv.conf').read())")
    assert result.stdout.strip() == b"nameserver 10.0.2.3"


def test_none_at_all(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    observed = provider.ensure(make_spec(network="none"))
    assert observed.notes == ()
    address = own_address()
    with serving(address) as port:
        result = run(observed.ref, CONNECT.format(hosts=[address, "10.0.2.2"], port=port))
    assert result.stdout.decode().splitlines() == [f"{host} OSError {UNREACHABLE}" for host in (address, "10.0.2.2")]


def test_without_slirp4netns_it_says_so(
    provider: LocalProvider, make_spec: MakeSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "program", lambda: None)
    observed = provider.ensure(make_spec())
    assert any("slirp4netns" in note for note in observed.notes)
    assert provider.inspect(observed.ref).notes == observed.notes
    assert "full" not in provider.capabilities.network
    assert run(observed.ref, "print(1)").stdout == b"1\n"
    finding = next(finding for finding in provider.diagnose() if finding.check == "network")
    assert not finding.ok
    assert not finding.required
    assert "apt-get install slirp4netns" in finding.hint
