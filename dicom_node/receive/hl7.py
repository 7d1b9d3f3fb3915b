"""Patient updates and merges from the hospital's registry, over HL7 v2 and MLLP.

A message is answered AA only after the ledger has committed what it says, so that a sender which keeps its queue
loses nothing; the same message twice changes nothing. What a message says goes the same way as `dicom-node patient`.
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from dicom_node import events
from dicom_node.ledger import cohort, identity_changes, presence
from dicom_node.ledger.identity_changes import By, Refused
from dicom_node.receive.hl7_messages import (
    Code,
    Header,
    Issuers,
    Merge,
    Problem,
    acknowledge,
    read_header,
    read_message,
)
from dicom_node.receive.mllp import BrokenFrame, MllpServer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Settings
    from dicom_node.timeline.model import PatientFacts

CALLER: Final = "(HL7)"  # stands where a refused DICOM caller has its AE title
INTERNAL: Final = 207  # application internal error, table 0357
CONTRADICTION: Final = 204  # unknown key identifier


class Registry:
    """Enters what one message says, and answers it."""

    def __init__(self, settings: Settings, database: Database, log: Log) -> None:
        default_issuer = settings.receive.hl7.default_issuer or settings.receive.default_issuer
        self._issuers = Issuers(default=default_issuer, aliases=settings.receive.issuer_aliases)
        self._database = database
        self._log = log

    def answer(self, content: bytes, address: str) -> bytes:
        """Enter a message; return its acknowledgment. Never raises."""
        header, problem = Header(), None
        try:
            header = read_header(content)
            self._enter(header, read_message(content, header, self._issuers))
        except Problem as found:
            problem = found
        except Refused as error:
            problem = Problem(Code.ERROR, CONTRADICTION, str(error))
            self._audit_refusal(header, error)
        except SQLAlchemyError as error:
            problem = Problem(Code.ERROR, INTERNAL, f"the ledger could not be written: {type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - the edge: one message must not stop the next
            self._log.failure(events.MESSAGE_ANSWERED, error, address=address)
            problem = Problem(Code.ERROR, INTERNAL, "internal error")
        self._note(header, problem, address)
        return acknowledge(header, problem, datetime.now(UTC).astimezone(), secrets.token_hex(10))

    def _enter(self, header: Header, said: list[Merge] | list[PatientFacts]) -> None:
        """Enter everything one message says, or nothing of it."""
        with self._database.write() as ledger:
            for each in said:
                _enter_one(ledger, each, _by(header))

    def _audit_refusal(self, header: Header, error: Refused) -> None:
        """Keep for the admin that a registry says what contradicts an earlier merge."""
        by = _by(header)
        try:
            with self._database.write() as ledger:
                cohort.write_audit(
                    ledger,
                    at=by.at,
                    actor=by.actor,
                    action="HL7 refused",
                    subject=header.control_id[:160],
                    details={"event": header.event, "reason": str(error)},
                )
        except SQLAlchemyError as failure:
            self._log.failure(events.MESSAGE_ANSWERED, failure)

    def _note(self, header: Header, problem: Problem | None, address: str) -> None:
        if problem is None:
            self._log.info(events.MESSAGE_ANSWERED, code=header.event, status=Code.ACCEPTED.value, address=address)
            return
        self._log.warning(
            events.MESSAGE_ANSWERED,
            code=header.event or "not served",
            status=problem.code.value,
            reason=str(problem),
            address=address,
        )


class Hl7Listener:
    """Serves on the configured port. `start()` returns when senders can connect, `stop()` when nobody is connected."""

    def __init__(self, settings: Settings, database: Database, log: Log) -> None:
        self._settings = settings.receive.hl7
        self._networks = [ipaddress.ip_network(host, strict=False) for host in self._settings.hosts]
        self._registry = Registry(settings, database, log)
        self._database = database
        self._log = log
        self._server: MllpServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: if the port is taken.
            ValueError: if no port is configured.
        """
        if self._settings.port is None:
            msg = "receive.hl7.port: expected a port, found none"
            raise ValueError(msg)
        self._server = MllpServer(
            (self._settings.host, self._settings.port),
            answer=self._registry.answer,
            allows=self._allows,
            broken=self._broken,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="hl7")
        self._thread.start()
        self._log.info(events.LISTENER_STARTED, port=self._settings.port, role="hl7")

    def stop(self) -> None:
        """Take no new connections and end the open ones; what was answered AA is committed."""
        if self._server is not None and self._thread is not None:
            self._server.close()
            self._thread.join()
            self._server = self._thread = None

    def _allows(self, address: str) -> bool:
        caller = ipaddress.ip_address(address)
        return any(caller in network for network in self._networks)

    def _broken(self, address: str, why: BaseException | str) -> None:
        """Log and count who was turned away or broke off; the ledger shows it in `status`."""
        reason = why if isinstance(why, str) else type(why).__name__
        told = str(why) if isinstance(why, BrokenFrame) else reason
        self._log.warning(events.CONNECTION_BROKEN, address=address, reason=told)
        try:
            with self._database.write() as ledger:
                presence.refused(
                    ledger, calling_ae_title=CALLER, address=address[:64], reason=reason[:64], now=datetime.now(UTC)
                )
        except SQLAlchemyError as error:
            self._log.failure(events.CONNECTION_BROKEN, error)


def _enter_one(ledger: Connection, said: Merge | PatientFacts, by: By) -> None:
    if isinstance(said, Merge):
        identity_changes.merge(ledger, said.retired, said.surviving, by)
    else:
        identity_changes.state(ledger, said, by)


def _by(header: Header) -> By:
    return By(actor=f"HL7 {header.sending[0]} {header.sending[1]}".strip(), at=datetime.now(UTC))
