"""Which URLs and addresses a provider's key may be sent to. Pure rules; `network.py` applies them at every connection.

A key goes only to the host that the operator configured, over TLS, and that host must not turn out to be a machine inside the operator's
own network: a name that resolves to a metadata service or to a private address is how keys and credentials are stolen (SSRF, DNS rebinding).
"""

import ipaddress
import re
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
_EMBEDDING = tuple(
    ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")
)
"""Where the last 32 bits are an IPv4 address: NAT64 (RFC 6052, RFC 8215), IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765)."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out to the public (RFC 4291, and IANA's registry since)."""
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_NUMBER_AT_THE_END = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?$")
"""As the URL standard has it (<https://url.spec.whatwg.org/#ends-in-a-number-checker>): such a host is an address, in whatever notation."""


class UnsafeURLError(ValueError):
    """A base URL or the address behind it is not one that a key may be sent to. The message says why and what setting allows it."""


def check_base_url(url: str, *, allow_private: bool = False) -> str:
    """Return `url` without trailing slashes. Raises UnsafeURLError unless it is a plain https URL (http: loopback or `allow_private`)."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UnsafeURLError(f"base_url {url!r} is not a URL: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise UnsafeURLError(
            f"base_url {_without_userinfo(url)!r} must be an http or https URL with a host, like https://api.openai.com/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise UnsafeURLError(f"base_url of host {host!r} holds a user or password; keys go into key_env or key_file")
    if parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise UnsafeURLError(
            f"base_url of host {host!r} may have a path only: no query, fragment, space or non-ASCII character"
        )
    if parts.scheme == "http" and not (allow_private or is_loopback_host(host)):
        raise UnsafeURLError(
            f"base_url {url!r} would send the key in clear text; use https, or set allow_private for a server of your own"
        )
    literal = parse_address(host)
    if literal is None and _NUMBER_AT_THE_END.search(host):
        raise UnsafeURLError(
            f"base_url {url!r}: the host {host!r} is an address in an unusual notation; write it as four decimal numbers"
        )
    if literal is None and not _NAME.fullmatch(host):
        raise UnsafeURLError(f"base_url {url!r}: {host!r} is no name of a host")
    if literal is not None and (why := refusal(literal, host=host, allow_private=allow_private)):
        raise UnsafeURLError(f"base_url {url!r}: {why}")
    return url.rstrip("/")


def is_loopback_host(host: str) -> bool:
    """Whether a URL's host names this machine by itself, without asking any resolver."""
    address = parse_address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def parse_address(host: str) -> IPAddress | None:
    """Return the address that `host` spells, or None when it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def refusal(address: IPAddress, *, host: str, allow_private: bool) -> str | None:
    """Say why no connection for `host` may be made to `address`; None when it may.

    Link-local, metadata, multicast and unspecified addresses are refused always; private ones unless `allow_private`; loopback unless
    `allow_private` or the URL itself names loopback.
    """
    inner = _embedded(address)
    if inner in _METADATA or inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        return (
            f"{host} is at {address}, a link-local, metadata, multicast or unspecified address; no provider lives there"
        )
    if inner.is_loopback:
        if allow_private or is_loopback_host(host):
            return None
        return f"{host} is at the loopback address {address}; name localhost in base_url, or set allow_private"
    public = inner.is_global and (isinstance(inner, ipaddress.IPv4Address) or inner in _GLOBAL_UNICAST)
    if not public and not allow_private:
        return f"{host} is at {address}, which is not a public address; set allow_private if the server is your own"
    return None


def _embedded(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64, …), since that is where its packets go."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if int(address) > 1 and any(address in network for network in _EMBEDDING):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _without_userinfo(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if at else url
