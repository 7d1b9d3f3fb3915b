"""Who calls, by which way: what a proxy says is believed from its own addresses alone."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.web.settings import USER_NAME

if TYPE_CHECKING:
    from werkzeug import Request

    from dicom_node.web.settings import Web

LOCAL_NAMES: Final = frozenset({"localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Where a request comes from."""

    address: str
    over_tls: bool
    user: str | None  # as the trusted proxy names it

    @property
    def key(self) -> str:
        """By what failed logins are counted: the address, of IPv6 the network that one subscriber has."""
        address = ipaddress.ip_address(self.address)
        return self.address if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))

    def may_be_served(self, *, plain_http: bool) -> bool:
        """Say whether what is sent can be read on the way by nobody else."""
        return plain_http or self.over_tls or ipaddress.ip_address(self.address).is_loopback


def identify(request: Request, web: Web) -> Caller:
    """Tell who calls."""
    peer = _address(request.environ.get("REMOTE_ADDR", "")) or "0.0.0.0"  # noqa: S104 - stands for nobody
    if not web.trusted_proxy.includes(peer):
        return Caller(address=peer, over_tls=False, user=None)
    forwarded = request.headers.get("X-Forwarded-For", "").rsplit(",", 1)[-1]
    return Caller(
        address=_address(forwarded.strip()) or peer,
        over_tls=request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https",
        user=_user(request, web.trusted_proxy.user_header),
    )


def is_ours(host: str, web: Web) -> bool:
    """Say whether a Host header may name us, so that no foreign name can be bound to our address (DNS rebinding).

    An address is nobody's name, so it is always allowed.
    """
    name = re.sub(r":\d{1,5}$", "", host.strip().lower())
    if _address(name.strip("[]")):
        return True
    return name in LOCAL_NAMES or name in web.names


def _user(request: Request, header: str | None) -> str | None:
    """Return the user whom a header names, None where it is missing, given twice or no name."""
    said = request.headers.get(header, "").strip() if header else ""
    return said if re.match(USER_NAME, said) and "," not in said else None


def _address(text: str) -> str | None:
    try:
        found = ipaddress.ip_address(text.split("%", maxsplit=1)[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped or found)
