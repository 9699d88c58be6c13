"""What a sandbox's network does not reach, as routing rules of its own network namespace, which need no firewall."""

from __future__ import annotations

import _socket
import os
import struct

_RTM_NEWRULE, _ACK_CREATE_EXCL_REQUEST = 32, 0x605
_FRA_DST, _FRA_PRIORITY, _FRA_PROTOCOL, _FRA_DPORT = 1, 6, 22, 24
_TO_TABLE, _UNREACHABLE = 1, 7
_MAIN_TABLE = 254
_GATEWAY_FLAG = 2


def shut_off(networks: list[str], resolvers: list[str]) -> None:
    """Make networks unreachable, and of the resolvers' addresses everything but DNS.

    A user-space network maps the resolver's address, on every port, to the host's resolver. Where that listens on the
    host's loopback, so would everything else on the loopback be within reach.
    """
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    try:
        priority = 100
        for protocol in (_socket.IPPROTO_UDP, _socket.IPPROTO_TCP):
            for resolver in resolvers:
                _add_rule(channel, priority, resolver, _TO_TABLE, protocol, 53)
                priority += 1
        for network in resolvers + networks:
            _add_rule(channel, priority, network, _UNREACHABLE)
            priority += 1
    finally:
        channel.close()


def keep_in(networks: list[str]) -> None:
    """Shut off `networks`, and the namespace's own neighbourhood; name servers that are there still answer."""
    networks = networks + neighbours()
    shut_off(networks, [address for address in named_resolvers() if _is_within(address, networks)])


def _is_within(address: str, networks: list[str]) -> bool:
    (number,) = struct.unpack("!I", _socket.inet_aton(address))
    for network in networks:
        base, _, length = network.partition("/")
        beyond = 32 - int(length)
        if number >> beyond == struct.unpack("!I", _socket.inet_aton(base))[0] >> beyond:
            return True
    return False


def neighbours() -> list[str]:
    """The networks that this namespace is in: whoever else is there, and the host itself as their gateway."""
    found = []
    with open("/proc/net/route", encoding="ascii") as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            if not int(fields[3], 16) & _GATEWAY_FLAG:
                # Addresses are in the byte order of the machine, as hexadecimal numbers.
                address = _socket.inet_ntoa(struct.pack("=I", int(fields[1], 16)))
                found.append("{}/{}".format(address, bin(int(fields[7], 16)).count("1")))
    return found


def named_resolvers(path: str = "/etc/resolv.conf") -> list[str]:
    """The IPv4 addresses of name servers, those on the own loopback left out."""
    found = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            if fields[:1] == ["nameserver"] and len(fields) > 1 and not fields[1].startswith("127."):
                try:
                    _socket.inet_aton(fields[1])
                except OSError:
                    continue
                found.append(fields[1])
    return found


def _add_rule(
    channel: _socket.socket, priority: int, network: str, action: int, protocol: int = 0, port: int = 0
) -> None:
    address, _, length = network.partition("/")
    attributes = _attribute(_FRA_DST, _socket.inet_aton(address))
    attributes += _attribute(_FRA_PRIORITY, struct.pack("=I", priority))
    if protocol:
        attributes += _attribute(_FRA_PROTOCOL, struct.pack("=B", protocol))
        attributes += _attribute(_FRA_DPORT, struct.pack("=HH", port, port))
    table = _MAIN_TABLE if action == _TO_TABLE else 0
    rule = struct.pack("=BBBBBBBBI", _socket.AF_INET, int(length or 32), 0, 0, table, 0, 0, action, 0)
    body = rule + attributes
    channel.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWRULE, _ACK_CREATE_EXCL_REQUEST, 1, 0) + body)
    answer = channel.recv(4096)
    (error,) = struct.unpack_from("=i", answer, 16)
    if error:
        raise OSError(-error, f"network rule for {network}: {os.strerror(-error)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
