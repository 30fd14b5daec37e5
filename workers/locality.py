"""Whether a broker or a ledger is on this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

_LOCAL_SCHEMES = ("sqlite", "redis+socket", "memory", "unix", "filesystem")


def is_local(url: str) -> bool:
    """Whether a URL names a file, a unix socket or a loopback address."""
    first = url.split(";", 1)[0]
    parts = urlsplit(first)
    if parts.scheme.split("+psycopg")[0] in _LOCAL_SCHEMES or parts.scheme.startswith("sqlite"):
        return True
    host = parts.hostname
    if host is None:
        return parts.scheme.startswith("postgresql")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
