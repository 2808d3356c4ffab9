"""Which machines a fetch may talk to."""

import asyncio

import pytest

from owl3.curate.address import GuardedResolver, PrivateAddress, host_matches, is_public, parse_resolve


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.7", "192.0.0.8", "fec0::1", "3fff::1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "not an address"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def resolver(*answers: list[str], **options: object) -> GuardedResolver:
    queue = list(answers)

    async def lookup(host: str) -> list[str]:
        return queue.pop(0)

    return GuardedResolver(lookup=lookup, **options)  # type: ignore[arg-type]


def test_a_name_with_one_private_address_among_public_ones_is_refused() -> None:
    with pytest.raises(PrivateAddress, match=r"10\.0\.0\.1"):
        asyncio.run(resolver(["93.184.216.34", "10.0.0.1"]).resolve("a.example", 80))


def test_the_addresses_checked_are_the_ones_connected_to() -> None:
    guard = resolver(["93.184.216.34"], ["127.0.0.1"])
    found = asyncio.run(guard.resolve("a.example", 443))
    assert [(entry["host"], entry["port"]) for entry in found] == [("93.184.216.34", 443)]


def test_a_name_that_changes_to_a_private_address_is_refused_when_it_is_asked_again() -> None:
    guard = resolver(["93.184.216.34"], ["127.0.0.1"])
    asyncio.run(guard.resolve("a.example", 80))
    guard._known.clear()  # the cached answer has expired
    with pytest.raises(PrivateAddress):
        asyncio.run(guard.resolve("a.example", 80))


def test_a_moved_host_is_still_checked() -> None:
    moved = {"*.test": ("127.0.0.1", 8123)}
    with pytest.raises(PrivateAddress):
        asyncio.run(GuardedResolver(resolve=moved).resolve("a.test", 80))
    found = asyncio.run(GuardedResolver(("*.test",), moved).resolve("a.test", 80))
    assert (found[0]["host"], found[0]["port"]) == ("127.0.0.1", 8123)


def test_patterns_of_hosts() -> None:
    assert host_matches("a.owl3.test", ["*.owl3.test"]) and host_matches("A.Owl3.test", ["a.owl3.test"])
    assert not host_matches("owl3.test.evil.example", ["*.owl3.test"])


def test_where_hosts_are_is_given_as_address_and_port() -> None:
    assert parse_resolve({"a.test": "127.0.0.1:80", "b.test": "[::1]:81"}) == {
        "a.test": ("127.0.0.1", 80),
        "b.test": ("::1", 81),
    }
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        parse_resolve({"a.test": "127.0.0.1"})
