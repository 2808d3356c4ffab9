"""Which machines a fetch may talk to: public ones, and those that the recipe names.

A URL of a web corpus is a stranger's input. Without this guard, `http://169.254.169.254/…` (a cloud's credentials) or
a redirect to `http://10.0.0.5/admin` would be fetched from inside the network and stored as a training picture.

The check stands in the resolver, so it holds for every redirect hop, and the addresses checked are the very ones
connected to: a name that changes between check and connect (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from aiohttp.abc import AbstractResolver, ResolveResult

_ALSO_PRIVATE = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10", "3fff::/20")))
"""Protocol assignments, site-local and documentation addresses, which the standard library counts as global."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CACHE_S = 60.0
_CACHED_HOSTS = 10_000

Lookup = Callable[[str], Awaitable[list[str]]]
"""How a host name becomes IP addresses; raises OSError when it has none."""


class PrivateAddress(Exception):
    """A host resolves to an address that is not public."""


def is_public(address: str) -> bool:
    """Is this IP address a public one, also when an IPv4 address is wrapped in an IPv6 one?"""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if int(ip) < 1 << 32:  # ::a.b.c.d, the old "IPv4-compatible" spelling
            return False
    if any(ip in network for network in _ALSO_PRIVATE):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def host_matches(host: str, patterns: Sequence[str]) -> bool:
    """Does a host name match one of `patterns` (`photos.example`, `*.example`), however both are spelt?"""
    name = plain_host(host)
    return any(fnmatchcase(name, plain_host(pattern)) for pattern in patterns)


@lru_cache(maxsize=10_000)
def plain_host(host: str) -> str:
    """A host name as it goes over the wire, without the dot that may end it; a pattern keeps its `*`."""
    name = host.lower().rstrip(".")
    try:
        return name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:  # no name that a host can have: it matches itself alone
        return name


def parse_resolve(resolve: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Read `{"*.owl3.test": "127.0.0.1:8123"}` into (address, port) per pattern.

    Raises:
        ValueError: when a value is not ADDRESS:PORT.
    """
    parsed = {}
    for pattern, target in resolve.items():
        address, separator, port = target.rpartition(":")
        if not separator or not port.isdecimal():
            raise ValueError(f"resolve {pattern}={target}: write it as HOST=ADDRESS:PORT")
        parsed[pattern] = (address.strip("[]"), int(port))
    return parsed


class GuardedResolver(AbstractResolver):
    """Resolve names for aiohttp, and refuse what is not public.

    Args:
        allow_private_hosts: Host patterns that may have private addresses; they come from the recipe.
        resolve: Host pattern to (address, port): where these hosts really are, as curl's `--resolve`. It moves a
            host, it does not excuse it: the address is checked all the same.
        lookup: How a name becomes addresses; a seam for tests.
    """

    def __init__(
        self,
        allow_private_hosts: Sequence[str] = (),
        resolve: Mapping[str, tuple[str, int]] | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._allow = tuple(allow_private_hosts)
        self._resolve = dict(resolve or {})
        self._lookup = lookup or system_lookup
        self._known: dict[str, tuple[float, list[str]]] = {}

    def check(self, host: str, address: str) -> None:
        """Raise `PrivateAddress` unless `host` may be reached at `address`."""
        if not is_public(address) and not host_matches(host, self._allow):
            raise PrivateAddress(f"{host} is at {address}, which is not a public address")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses to connect to, all of them checked (aiohttp's interface)."""
        for pattern, (address, moved_port) in self._resolve.items():
            if host_matches(host, (pattern,)):
                self.check(host, address)
                return [_result(host, address, moved_port)]
        addresses = await self._addresses(host)
        for address in addresses:
            self.check(host, address)  # one private address among public ones is an attack, not a choice
        return [_result(host, address, port) for address in addresses]

    def known_address(self, host: str | None) -> str:
        """The checked addresses of a host that was connected to, for the evidence; empty for literal addresses."""
        for pattern, (address, _) in self._resolve.items():
            if host_matches(host or "", (pattern,)):
                return address
        return " ".join(self._known.get(host or "", (0.0, []))[1])

    async def close(self) -> None:
        """Nothing is held open (aiohttp's interface)."""

    async def _addresses(self, host: str) -> list[str]:
        known = self._known.get(host)
        if known and known[0] > time.monotonic():
            return known[1]
        addresses = await self._lookup(host)
        if len(self._known) >= _CACHED_HOSTS:
            self._known.clear()
        self._known[host] = (time.monotonic() + _CACHE_S, addresses)
        return addresses


async def system_lookup(host: str) -> list[str]:
    """Ask the operating system; every address once, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
