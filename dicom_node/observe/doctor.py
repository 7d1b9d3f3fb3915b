"""`dicom-node doctor`: is everything around the node as it needs it? One finding each, none of them guessed."""

from __future__ import annotations

import dataclasses
import shutil
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import requests
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import tls
from dicom_node.errors import ConfigError, NodeError, UpstreamError
from dicom_node.ledger.database import Database
from dicom_node.receive.contexts import COMPRESSED, decodable
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.stock import compare
from dicom_node.requestor import PREPARED
from dicom_node.settings import Dimse
from dicom_node.web.ask import ask
from dicom_node.work import saliency
from dicom_node.work.folders import Folders
from dicom_node.work.tasks import load_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_node.settings import Pacs, Settings
    from dicom_node.tls_settings import Tls

REJECTED: Final = "rejected the association"
RENEW_BEFORE_DAYS: Final = 30  # a certificate that ends sooner is worth an alarm


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    good: bool


def examine(settings: Settings) -> list[Finding]:
    """Look at everything the node depends on."""
    return [
        _disk(settings),
        _privacy(settings),
        _database(settings),
        *_files(settings),
        *_bundles(settings),
        _decoders(),
        _device(settings),
        *_listeners(settings),
        *_certificates(settings),
        _web(settings),
        *[_archive(each, settings) for each in settings.pacs],
    ]


def _disk(settings: Settings) -> Finding:
    folder = settings.node.data_dir
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    wanted_gb = settings.receive.min_free_disk_gb
    return Finding(what="disk", found=f"{free_gb:.1f} GB free, {wanted_gb:g} GB wanted", good=free_gb >= wanted_gb)


def _privacy(settings: Settings) -> Finding:
    folder = settings.node.data_dir
    if not folder.exists():
        return Finding(what="data folder", found="not there yet; made at the first start", good=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    found = f"mode {mode:04o}" + ("; others than its owner and group may enter it" if mode & stat.S_IRWXO else "")
    return Finding(what="data folder", found=found, good=not mode & stat.S_IRWXO)


def _database(settings: Settings) -> Finding:
    if not settings.database.url and not (settings.node.data_dir / "ledger.sqlite").is_file():
        return Finding(what="database", found="no ledger yet; made at the first start", good=True)
    try:
        Database(settings.ledger_url).require_newest_schema()
    except (NodeError, SQLAlchemyError) as error:
        return Finding(
            what="database", found=str(error) if isinstance(error, NodeError) else type(error).__name__, good=False
        )
    return Finding(what="database", found="schema up to date", good=True)


def _files(settings: Settings) -> list[Finding]:
    """Hold files and rows against each other, as a start does, and change nothing."""
    if not settings.database.url and not (settings.node.data_dir / "ledger.sqlite").is_file():
        return []
    folders = Folders.under(settings.node.data_dir)
    database = Database(settings.ledger_url)
    try:
        database.require_newest_schema()
        found = compare(database, InstanceFiles(folders.instances), folders.outbox)
    except (NodeError, SQLAlchemyError):
        return []  # the finding above says why
    finally:
        database.close()
    gone = len(found.lost) + found.noted
    unsendable = len(found.outbox)
    said = f"{found.promised - gone} received files here, {gone} gone or cut short; {unsendable} encoded objects gone"
    return [Finding(what="files", found=said, good=gone == 0 and not found.outbox)]


def _bundles(settings: Settings) -> list[Finding]:
    try:
        served = load_tasks(settings.tasks)
    except ConfigError as error:
        return [Finding(what="tasks", found=problem, good=False) for problem in error.problems]
    return [
        Finding(
            what=f"task {name}",
            found=f"bundle {each.bundle_digest[:19]}"
            + (", trained on phantoms: for phantoms only" if each.synthetic else "")
            + f"; {saliency.told(each.task.saliency, each.saliency)}",
            good=True,
        )
        for name, each in served.items()
    ]


def _decoders() -> Finding:
    missing = [syntax.name for syntax in COMPRESSED if syntax not in decodable()]
    found = (
        f"no decoder for {', '.join(missing)}"
        if missing
        else f"{len(COMPRESSED)} compressed transfer syntaxes decodable"
    )
    return Finding(what="decoders", found=found, good=not missing)


def _device(settings: Settings) -> Finding:
    import torch  # noqa: PLC0415 - slow to load, and only this finding needs it

    wanted = settings.inference.device
    if torch.cuda.is_available():
        return Finding(what="device", found=f"{torch.cuda.get_device_name()}; configured: {wanted}", good=True)
    return Finding(what="device", found=f"CPU, no CUDA; configured: {wanted}", good=not wanted.startswith("cuda"))


def _listeners(settings: Settings) -> list[Finding]:
    """Call our own ports. A rejection is an answer too: it comes from our own allow-list, on which we are not."""
    host = "127.0.0.1" if settings.node.host in {"0.0.0.0", "::"} else settings.node.host  # noqa: S104 - compared only
    found = []
    if settings.receive.plain:
        ours = Dimse(ae_title=settings.node.ae_title, host=host, port=settings.node.port)
        finding = _echo("our own listener", settings, ours)
        found.append(dataclasses.replace(finding, good=finding.good or REJECTED in finding.found))
    if settings.receive.tls.enabled:
        found.append(_secure_port(settings.receive.tls, host))
    return found


def _secure_port(wanted: Tls, host: str) -> Finding:
    assert wanted.certificate is not None  # noqa: S101 - the configuration demands it where TLS is enabled
    try:
        same = tls.served_fingerprint(host, wanted, timeout_s=5) == tls.own_fingerprint(wanted.certificate)
        found = "our certificate is shown" if same else "another certificate is shown than receive.tls.certificate"
    except (OSError, ValueError) as error:
        same, found = False, tls.why(error) if isinstance(error, ssl.SSLError) else type(error).__name__
    return Finding(what="our own secure port", found=f"{host}:{wanted.port}: {found}", good=same)


def _certificates(settings: Settings) -> list[Finding]:
    """Look how long our certificates hold, and those of the authorities we believe; one line for each file."""
    files: dict[Path, str] = {}
    for where, credentials in tls.used(settings):
        for name in ("certificate", "ca"):
            path = getattr(credentials, name)
            if path is not None:
                files.setdefault(path, f"{where}.{name}")
    return [_certificate(where, path) for path, where in files.items()]


def _certificate(where: str, path: Path) -> Finding:
    try:
        ends = min(each.not_valid_after_utc for each in tls.own_certificates(path))
    except (OSError, ValueError) as error:
        return Finding(what=where, found=f"{path}: cannot be read: {type(error).__name__}", good=False)
    return Finding(what=where, found=f"{path}: {_days(ends)}", good=_lasts(ends))


def _days(ends: datetime) -> str:
    days = (ends - datetime.now(UTC)).days
    return f"ends in {days} days" if days >= 0 else f"ended {-days} days ago"


def _lasts(ends: datetime) -> bool:
    return ends - datetime.now(UTC) >= timedelta(days=RENEW_BEFORE_DAYS)


def _web(settings: Settings) -> Finding:
    found, good = ask(settings.web)
    return Finding(what="status page", found=found, good=good)


def _archive(pacs: Pacs, settings: Settings) -> Finding:
    if pacs.dimse is not None:
        return _echo(f"archive {pacs.name}", settings, pacs.dimse)
    assert pacs.orthanc is not None  # noqa: S101 - the configuration allows exactly one of the two
    user, password = pacs.orthanc.credentials()
    try:
        answer = requests.get(f"{pacs.orthanc.url}/system", auth=(user or "", password or ""), timeout=5)
        found = f"HTTP {answer.status_code} from Orthanc"
        return Finding(what=f"archive {pacs.name}", found=found, good=answer.ok)
    except requests.RequestException as error:
        return Finding(what=f"archive {pacs.name}", found=f"no answer: {type(error).__name__}", good=False)


def _echo(what: str, settings: Settings, called: Dimse) -> Finding:
    where = f"{called.ae_title} at {called.host}:{called.port}"
    ae = AE(ae_title=settings.node.ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    ae.add_requested_context(Verification)
    try:
        tls_args = tls.requestor_args(called)
    except UpstreamError as error:
        return Finding(what=what, found=f"{where}: {error}", good=False)
    association = ae.associate(
        called.host, called.port, ae_title=called.ae_title, evt_handlers=[*PREPARED], tls_args=tls_args
    )
    if not association.is_established:
        why = REJECTED if association.is_rejected else tls.failure(association) or "no connection"
        return Finding(what=what, found=f"{where}: {why}", good=False)
    shown = tls.link(association.dul.socket.socket if association.dul.socket else None).shown
    status = association.send_c_echo()
    association.release()
    good = "Status" in status and status.Status == 0x0000
    found = f"{where}: C-ECHO {'answered' if good else 'failed'}"
    if shown is None:
        return Finding(what=what, found=found, good=good)
    found = f"{found} over TLS; its certificate {_days(shown.ends)}"
    return Finding(what=what, found=found, good=good and _lasts(shown.ends))
