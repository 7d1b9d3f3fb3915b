"""What the configuration says of the status page: where it listens, who may log in, which proxy is believed.

A token never stands in it: it comes from an environment variable or a file that it names.
"""

from __future__ import annotations

import ipaddress
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from dicom_node.addresses import Networks, Port
from dicom_node.documents import Document
from dicom_node.errors import NodeError

SHORTEST_TOKEN: Final = 20  # characters; `openssl rand -hex 32` makes 64
USER_NAME: Final = r"^[^\x00-\x1f\x7f]{1,64}$"  # as long as the audit keeps it
HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")


class Role(StrEnum):
    """What somebody may do."""

    ADMIN = "admin"  # see everything, retry, hold and release
    VIEWER = "viewer"  # see everything
    METRICS = "metrics"  # read /metrics, which names no patient


def _ip_address(host: str) -> str:
    ipaddress.ip_address(host)
    return host


def _host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [name for name in names if not HOST_NAME.fullmatch(name)]
    if wrong:
        msg = f"expected host names without scheme and port, found {', '.join(wrong)}"
        raise ValueError(msg)
    return tuple(name.lower() for name in names)


class User(Document):
    """Somebody who may log in with a token; the name stands in the audit."""

    name: str = Field(pattern=USER_NAME)
    role: Role = Role.ADMIN
    token_env: str | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.token_env is None) == (self.token_file is None):
            msg = "expected exactly one of token_env and token_file"
            raise ValueError(msg)
        return self

    def token(self) -> str:
        """Return the token.

        Raises:
            NodeError: if there is none, or it is too short to be safe; the token is not told.
        """
        where = f"the environment variable {self.token_env}" if self.token_env else str(self.token_file)
        try:
            found = self.token_file.read_text("utf-8") if self.token_file else os.environ.get(self.token_env or "", "")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"web.users {self.name}: {where} cannot be read: {type(error).__name__}"
            raise NodeError(msg) from error
        found = found.strip()
        if len(found) < SHORTEST_TOKEN:
            msg = (
                f"web.users {self.name}: {where}: expected a token of {SHORTEST_TOKEN} characters or more, "
                f"found {len(found)}"
            )
            raise NodeError(msg)
        return found


class TrustedProxy(Document):
    """A reverse proxy in front of the page: its addresses, and the header in which it names who logged in there."""

    hosts: Networks = ()
    user_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")  # none: it only ends TLS
    admins: tuple[str, ...] | None = None  # who may change things; none: everybody whom it lets in

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.user_header is not None and not self.hosts:
            msg = "user_header needs hosts: from which addresses the header is believed"
            raise ValueError(msg)
        return self

    def includes(self, address: str) -> bool:
        """Say whether a connection from this IP address is the proxy's."""
        caller = ipaddress.ip_address(address)
        return any(caller in ipaddress.ip_network(host, strict=False) for host in self.hosts)

    def role_of(self, user: str) -> Role:
        """Return what somebody may do whom the proxy let in."""
        return Role.ADMIN if self.admins is None or user in self.admins else Role.VIEWER


class Web(Document):
    """The status page: where it listens and who may see more than the answer to a health probe."""

    enabled: bool = False
    host: Annotated[str, AfterValidator(_ip_address)] = "127.0.0.1"
    port: Port = 8080
    names: Annotated[tuple[str, ...], AfterValidator(_host_names)] = ()  # by which browsers call it, beside its address
    users: tuple[User, ...] = ()
    trusted_proxy: TrustedProxy = TrustedProxy()
    allow_plain_http: bool = False  # serve pages without TLS to other machines
    session_h: float = Field(default=8, gt=0, le=168)
    refresh_s: int = Field(default=30, ge=5, le=3600)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @model_validator(mode="after")
    def _somebody_can_log_in(self) -> Self:
        names = [user.name for user in self.users]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"users: name given more than once: {', '.join(twice)}"
            raise ValueError(msg)
        if self.enabled and not self.is_local and not self.users and self.trusted_proxy.user_header is None:
            msg = f"host {self.host} is reached by other machines: expected users, or trusted_proxy with user_header"
            raise ValueError(msg)
        if self.enabled and not self.is_local and not self.trusted_proxy.hosts and not self.allow_plain_http:
            msg = (
                f"host {self.host} is reached by other machines, and tokens and patients would pass in the clear: "
                "expected trusted_proxy.hosts (a proxy that ends TLS), or allow_plain_http: true"
            )
            raise ValueError(msg)
        return self
