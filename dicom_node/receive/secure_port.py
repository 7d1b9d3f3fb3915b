"""The secure port: DICOM TLS, whose handshakes hold nobody up.

pynetdicom shakes hands in the loop that accepts connections: one peer that opens the port and says nothing would keep
everybody out. Here every handshake has a thread, an end, and a limit of how many may be under way, altogether and from
one address. What fails is counted by address and reason, and nobody else notices.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom.transport import ThreadedAssociationServer

from dicom_node import events, tls

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from pynetdicom import AE, evt

    from dicom_node.observe.logs import Log
    from dicom_node.tls_settings import Tls

MOST_HANDSHAKES: Final = 64  # under way; one takes milliseconds
MOST_FROM_ONE_ADDRESS: Final = 16
TOO_MANY: Final = "too-many-tls-handshakes"


class Certificates:
    """The context that the port serves with, made anew when one of its files changes: renewing needs no restart."""

    def __init__(self, settings: Tls, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._guard = threading.Lock()
        self._seen = self._stamps()
        self._context = tls.server_context(settings)

    def context(self) -> ssl.SSLContext:
        """Return the newest context that could be made; new files that cannot be used leave the old one in place."""
        with self._guard:
            try:
                stamps = self._stamps()
                if stamps != self._seen:
                    self._seen = stamps
                    self._context = tls.server_context(self._settings)
                    self._log.info(events.CERTIFICATE_LOADED)
            except OSError as error:
                self._log.failure(events.CERTIFICATE_FAILED, error)
            return self._context

    def _stamps(self) -> list[tuple[int, int]]:
        paths = (self._settings.certificate, self._settings.key, self._settings.ca)
        found = [path.stat() for path in paths if path is not None]
        return [(each.st_mtime_ns, each.st_ino) for each in found]


class SecurePort(ThreadedAssociationServer):
    """An association server that speaks TLS; beyond pynetdicom's arguments it takes what is in `serve`."""

    daemon_threads = True  # a handshake under way does not delay the end

    def __init__(self, *args: Any, settings: Tls, log: Log, refuse: Callable[[str, str], None], **kwargs: Any) -> None:
        self._certificates = Certificates(settings, log)
        self._timeout_s = settings.handshake_timeout_s
        self._log = log
        self._refuse = refuse
        self._guard = threading.Lock()
        self._under_way: Counter[str] = Counter()
        super().__init__(*args, **kwargs)

    def verify_request(self, request: object, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Say whether one more handshake may begin; this runs in the loop that accepts, so nothing here waits."""
        address = str(client_address[0])
        with self._guard:
            full = self._under_way.total() >= MOST_HANDSHAKES or self._under_way[address] >= MOST_FROM_ONE_ADDRESS
            if not full:
                self._under_way[address] += 1
        if full:
            self._log.warning(events.ASSOCIATION_REFUSED, address=address, reason=TOO_MANY)
        return not full

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, then have pynetdicom do the rest."""
        address = str(client_address[0])
        try:
            secured = self._secure(request, address)
        finally:
            with self._guard:
                self._under_way[address] -= 1
                self._under_way = +self._under_way  # addresses with none under way are forgotten
        if secured is not None:
            super().process_request_thread(secured, client_address)

    def _secure(self, request: socket.socket, address: str) -> ssl.SSLSocket | None:
        connection = request
        try:
            context = self._certificates.context()
            connection = secured = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            tls.handshake(secured, self._timeout_s)
        except OSError as error:
            self.shutdown_request(connection)
            self._refuse(address, f"tls: {tls.why(error)}")
            return None
        return secured


def serve(
    ae: AE,
    address: tuple[str, int],
    handlers: Sequence[evt.EventHandlerType],
    *,
    settings: Tls,
    log: Log,
    refuse: Callable[[str, str], None],
) -> SecurePort:
    """Serve an AE on the secure port too.

    Args:
        ae: with what it supports.
        address: host and port.
        handlers: the same as on the plain port.
        settings: certificate, key and authorities.
        log: where renewed certificates are told.
        refuse: called with address and reason for every handshake that failed, in a thread of its own.

    Raises:
        OSError: if the port is taken, or a file cannot be used.
    """
    made = ae.make_server(
        address, evt_handlers=list(handlers), server_class=SecurePort, settings=settings, log=log, refuse=refuse
    )
    server = cast("SecurePort", made)
    ae._servers.append(server)  # noqa: SLF001 - as start_server does; its shutdown takes it out again
    threading.Thread(target=server.serve_forever, name="secure-port", daemon=True).start()
    return server
