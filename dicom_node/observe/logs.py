"""Structured logs that cannot carry an identity (invariant 9).

A processor lets only known fields through, so a name, an ID, a date or a description cannot slip in by a new field.
Patients, studies and instances appear as pseudonyms: a keyed hash, the key lying in the data folder. Records of
other libraries keep their logger and level and lose their text, for they may quote a data set.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

    from dicom_node.settings import Logging

ALLOWED_FIELDS: Final = frozenset(
    {
        "address", "archive", "attempts", "back", "calling_ae_title", "case", "code", "count", "destination",
        "duration_s", "error", "event", "executor", "exit_code", "instance", "level", "logger", "lost", "method",
        "objects", "outbox_lost", "patient", "pid", "port", "reason", "removed", "role", "run", "seconds", "state",
        "status", "step", "study", "task", "timestamp", "trace", "version",
    }
)  # fmt: skip
KEY_BYTES: Final = 32
QUIET_LIBRARIES: Final = ("pynetdicom", "dbos", "alembic", "sqlalchemy", "monai", "nilearn", "highdicom")


class Log:
    """A structured logger with a pseudonym for everything that must not be named."""

    def __init__(self, logger: Any, key: bytes) -> None:
        self._logger = logger
        self._key = key

    def pseudonym(self, *parts: str) -> str:
        """Return a keyed hash of an identifier: the same in every line, of no use without the key."""
        return hmac.digest(self._key, "\x1f".join(parts).encode(), "sha256").hex()[:12]

    def debug(self, event: str, **fields: object) -> None:
        """Log a detail."""
        self._logger.debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Log a fact."""
        self._logger.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log what somebody may have to look at."""
        self._logger.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Log what an admin has to look at."""
        self._logger.error(event, **fields)

    def failure(self, event: str, error: BaseException, **fields: object) -> None:
        """Log an unexpected error: its type and where it happened, never its text."""
        self._logger.error(event, error=type(error).__name__, trace=where(error), **fields)


def where(error: BaseException) -> str:
    """Return the innermost frames of an error as file:line function, without values."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def only_allowed_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop every field that is not on the list, and say that one was dropped."""
    kept = {key: value for key, value in event.items() if key in ALLOWED_FIELDS or key.startswith("_")}
    if len(kept) < len(event):
        kept["error"] = "field-not-allowed-in-logs"
    return kept


class _BestEffort:
    """Writes to a stream, and goes on where it cannot: a full disk under the log must not fail what is logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop what cannot be written."""
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, as far as it goes."""
        with contextlib.suppress(OSError):
            self._stream.flush()


class _WithoutText(logging.Filter):
    """Replaces the text of another library's record by its origin."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = f"{record.name}:{record.lineno}", ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def load_key(data_dir: Path) -> bytes:
    """Return the key of the pseudonyms, made on first use and readable by us alone.

    Raises:
        OSError: if it cannot be read or made.
    """
    path = data_dir / "pseudonym.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = data_dir / f".pseudonym.{secrets.token_hex(4)}"
        temporary.touch(mode=0o600)
        temporary.write_bytes(secrets.token_bytes(KEY_BYTES))
        try:
            path.hardlink_to(temporary)  # the first of two processes wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        return path.read_bytes()


def open_log(settings: Logging, key: bytes, stream: TextIO = sys.stderr) -> Log:
    """Set up logging for this process and return its log."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    pretty = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(sort_keys=True)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    sink = cast("TextIO", _BestEffort(stream))
    handler = logging.StreamHandler(sink)
    handler.addFilter(_WithoutText())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, only_allowed_fields, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # pydicom's warnings quote values of the data set
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sink),
        processors=[*shared[1:], structlog.processors.add_log_level, only_allowed_fields, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    ).bind()  # now, not at every line
    return Log(logger, key)
