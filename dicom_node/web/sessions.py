"""Who is logged in: sessions in memory, tokens against forged forms, and a limit on failed logins.

A restart of the node logs everybody out; nothing of this is kept on disk.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.errors import NodeError
from dicom_node.web.settings import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dicom_node.web.settings import User

MOST_SESSIONS: Final = 1000
MOST_FAILURES: Final = 5
FORGET_S: Final = 300.0
MOST_CALLERS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who is logged in; `form_token` stands in every form made for this visitor."""

    name: str
    role: Role
    form_token: str
    session: str | None = None  # the cookie's value; none: a proxy did the login

    @property
    def may_act(self) -> bool:
        """Whether this visitor may change anything."""
        return self.role is Role.ADMIN


class Tokens:
    """The users and their tokens, as digests."""

    def __init__(self, users: Iterable[User], unusable: Callable[[NodeError], None]) -> None:
        self._users: list[tuple[User, bytes]] = []
        for user in users:
            try:
                self._users.append((user, _digest(user.token())))
            except NodeError as error:
                unusable(error)

    def owner(self, token: str) -> User | None:
        """Return whose token this is; takes equally long whoever it is."""
        given, found = _digest(token), None
        for user, digest in self._users:
            if hmac.compare_digest(given, digest):
                found = user
        return found


class Sessions:
    """Who is logged in, and until when."""

    def __init__(self, lifetime_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s = lifetime_s
        self._monotonic = monotonic
        self._secret = secrets.token_bytes(32)
        self._open: OrderedDict[bytes, tuple[Visitor, float]] = OrderedDict()
        self._guard = threading.Lock()

    def open(self, name: str, role: Role) -> Visitor:
        """Log somebody in; the oldest session makes room where there are too many."""
        session = secrets.token_urlsafe(32)
        visitor = Visitor(name=name, role=role, form_token=self.form_token(f"session {session}"), session=session)
        with self._guard:
            self._open[_digest(session)] = (visitor, self._monotonic() + self._lifetime_s)
            while len(self._open) > MOST_SESSIONS:
                self._open.popitem(last=False)
        return visitor

    def get(self, session: str) -> Visitor | None:
        """Return who has this session, if it has not ended."""
        key = _digest(session)
        with self._guard:
            visitor, until = self._open.get(key, (None, 0.0))
            if visitor is not None and self._monotonic() > until:
                del self._open[key]
                return None
            return visitor

    def close(self, session: str) -> None:
        """Log somebody out."""
        with self._guard:
            self._open.pop(_digest(session), None)

    def form_token(self, subject: str) -> str:
        """Return what a form must hold that was made for this subject."""
        return hmac.new(self._secret, subject.encode(), hashlib.sha256).hexdigest()


class Throttle:
    """Counts failed logins by caller; after some, the caller has to wait."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._guard = threading.Lock()
        self.refused = 0  # logins since the start

    def wait_s(self, caller: str) -> float:
        """Return how long a caller has to wait, 0 for not at all."""
        with self._guard:
            recent = self._recent(caller)
            return recent[-MOST_FAILURES] + FORGET_S - self._monotonic() if len(recent) >= MOST_FAILURES else 0.0

    def failed(self, caller: str) -> None:
        """Note a login that was refused."""
        with self._guard:
            self.refused += 1
            self._failures[caller] = [*self._recent(caller), self._monotonic()]
            self._failures.move_to_end(caller)
            while len(self._failures) > MOST_CALLERS:
                self._failures.popitem(last=False)

    def succeeded(self, caller: str) -> None:
        """Forget what went wrong before."""
        with self._guard:
            self._failures.pop(caller, None)

    def _recent(self, caller: str) -> list[float]:
        oldest = self._monotonic() - FORGET_S
        return [at for at in self._failures.get(caller, []) if at > oldest][-MOST_FAILURES:]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
