"""How a configuration names a system on the network: its AE title, its port, the addresses it may call from."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def _ae_title(value: str) -> str:
    """Check an AE title (PS3.5 6.2): 1-16 printable ASCII characters, no backslash, not only spaces."""
    title = value.strip(" ")
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        msg = "an AE title is 1 to 16 printable ASCII characters without a backslash (PS3.5 6.2)"
        raise ValueError(msg)
    return title


def _networks(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        ipaddress.ip_network(host, strict=False)
    return hosts


AeTitle = Annotated[str, BeforeValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Networks = Annotated[tuple[str, ...], AfterValidator(_networks)]  # IP addresses, or networks as 192.0.2.0/24
