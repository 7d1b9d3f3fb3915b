"""Logs that cannot carry an identity: an allow-list of fields, keyed pseudonyms, and silenced libraries."""

from __future__ import annotations

import ast
import io
import json
import logging
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicom_node import events
from dicom_node.observe.logs import ALLOWED_FIELDS, Log, load_key, open_log
from dicom_node.settings import Logging

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "SENTINEL^PATIENT"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes; the handlers of the process are put back at the end."""
    before = logging.getLogger().handlers[:]
    yield io.StringIO()
    logging.getLogger().handlers[:] = before


@pytest.fixture
def log(stream: io.StringIO) -> Log:
    """A JSON log."""
    return open_log(Logging(format="json"), b"key", stream)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Return what was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_field_that_is_not_on_the_list_is_dropped_and_told(log: Log, stream: io.StringIO) -> None:
    """A new field cannot slip in."""
    log.info(events.INSTANCE_INDEXED, instance="abc", patient_name=SECRET)
    (line,) = lines(stream)
    assert SECRET not in stream.getvalue()
    assert line["error"] == "field-not-allowed-in-logs"
    assert line["instance"] == "abc"


def test_a_pseudonym_is_stable_and_depends_on_the_key(log: Log, stream: io.StringIO) -> None:
    """The same patient is the same in every line, and of no use to who lacks the key."""
    other = open_log(Logging(format="json"), b"other key", stream)
    assert log.pseudonym("A", "1") == log.pseudonym("A", "1")
    assert len({log.pseudonym("A", "1"), log.pseudonym("A", "2"), other.pseudonym("A", "1")}) == 3


def test_an_unexpected_error_is_told_by_type_and_place_never_by_text(log: Log, stream: io.StringIO) -> None:
    """Its text may quote a data set."""
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int(SECRET)
    log.failure(events.TICK_FAILED, caught.value)
    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert "test_logs.py" in str(line["trace"])
    assert SECRET not in stream.getvalue()


@pytest.mark.usefixtures("log")
def test_other_libraries_lose_their_text(stream: io.StringIO) -> None:
    """Logger and level stay, so that an admin knows where to look."""
    logging.getLogger("pydicom").error("Invalid value %s", SECRET)
    (line,) = lines(stream)
    assert line["logger"] == "pydicom"
    assert line["level"] == "error"
    assert SECRET not in stream.getvalue()


def test_the_key_is_made_once_and_readable_by_us_alone(tmp_path: Path) -> None:
    """Two processes that start at once share one key."""
    first, second = load_key(tmp_path / "data"), load_key(tmp_path / "data")
    assert first == second
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "data" / "pseudonym.key").stat().st_mode) == 0o600


def logged_fields() -> set[str]:
    """Return the keyword of every field that a log call in the code names."""
    found = set()
    for path in (ROOT / "dicom_node").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("log.info", "log.warning", "log.error", "log.debug", "log.failure")
            ):
                found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


def test_every_field_that_the_code_logs_is_allowed() -> None:
    """A dropped field would be a fact lost."""
    assert logged_fields() <= ALLOWED_FIELDS


def test_events_are_named_noun_dot_participle() -> None:
    """One style for every event, and no two names alike."""
    names = [value for key, value in vars(events).items() if key.isupper()]
    assert len(set(names)) == len(names)
    assert all(name.count(".") == 1 and name.islower() for name in names)
