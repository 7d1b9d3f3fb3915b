"""Test data open only as final, and every opening is written down before a byte is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from inference.evaluation.locked import OPENINGS, LockedTestError, count_openings, folder_digest, open_locked
from tests.factories.predictions import predictions_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """Return a folder of test data."""
    predictions_of(20).save(tmp_path / "test.npz")
    return tmp_path


def test_test_data_stay_closed_unless_asked_for_as_final(locked: Path) -> None:
    """The error says what to do instead, and nothing is recorded."""
    with pytest.raises(LockedTestError, match=r"locked.*validation data.*--final.*0 so far"):
        open_locked(locked, final=False, reason="curious")
    assert not (locked / OPENINGS).exists()


def test_every_opening_adds_a_line_with_time_command_reason_and_digest(locked: Path) -> None:
    """The second opening is number 2 of the same data."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    first = open_locked(locked, final=True, reason="final figures", command="python -m inference evaluate --final")
    second = open_locked(locked, final=True, reason="a figure was drawn wrong\nagain")
    lines = [json.loads(line) for line in (locked / OPENINGS).read_text(encoding="utf-8").splitlines()]
    assert [line["number"] for line in lines] == [1, 2]
    assert lines[0]["command"] == "python -m inference evaluate --final"
    assert lines[0]["reason"] == "final figures"
    assert before <= datetime.fromisoformat(lines[0]["opened_at"]) <= datetime.now(UTC)
    assert first.digest == second.digest == folder_digest(locked)
    assert count_openings(locked) == 2


def test_a_reason_is_asked_for(locked: Path) -> None:
    """A blank one does not count."""
    with pytest.raises(LockedTestError, match="expected a reason"):
        open_locked(locked, final=True, reason="  ")


def test_a_folder_that_is_not_there_is_not_opened(tmp_path: Path) -> None:
    """The message names the folder."""
    with pytest.raises(LockedTestError, match="nowhere"):
        open_locked(tmp_path / "nowhere", final=True, reason="final figures")


def test_the_digest_tells_other_data_apart(locked: Path) -> None:
    """One changed label, one renamed file, one longer volume: each another digest; the record itself changes none."""
    digests = {folder_digest(locked)}
    predictions_of(20, seed=1).save(locked / "test.npz")
    digests.add(folder_digest(locked))
    (locked / "test.npz").rename(locked / "other.npz")
    digests.add(folder_digest(locked))
    (locked / "volumes.bin").write_bytes(b"abc")
    digests.add(folder_digest(locked))
    (locked / "volumes.bin").write_bytes(b"abcd")
    digests.add(folder_digest(locked))
    (locked / "shown.csv").write_text("a\n", encoding="utf-8")
    digests.add(folder_digest(locked))
    (locked / "shown.csv").write_text("b\n", encoding="utf-8")
    digests.add(folder_digest(locked))
    assert len(digests) == 7
    (locked / OPENINGS).write_text("{}\n", encoding="utf-8")
    assert folder_digest(locked) in digests


def test_prepared_volumes_count_by_name_and_size_and_are_not_read(locked: Path) -> None:
    """Many gigabytes lie beside the index of a prepared cohort: one that nobody may read can still be digested."""
    volume = locked / "prepared" / "one.npz"
    volume.parent.mkdir()
    volume.write_bytes(b"abc")
    before = folder_digest(locked)
    volume.write_bytes(b"xyz")
    assert folder_digest(locked) == before
    volume.write_bytes(b"longer")
    assert folder_digest(locked) != before
