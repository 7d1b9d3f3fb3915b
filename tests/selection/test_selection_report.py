"""The rules agree with a reader on real scanners' headers, and where they do not, the table says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.factories.facts import SELECTION
from tests.selection.report import Row, load_table, rows

ROOT = os.environ.get("DICOM_NODE_REAL_DATA")

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(ROOT is None, reason="DICOM_NODE_REAL_DATA is not set: no real images on this machine"),
]


@pytest.fixture(scope="module")
def report() -> list[Row]:
    """Every series of the archives, asked once."""
    return rows(Path(str(ROOT)), SELECTION)


def test_the_score_does_not_fall(report: list[Row]) -> None:
    """A change of a rule that loses a real series is seen."""
    assert sum(row.agrees for row in report) >= load_table().agreed


def test_every_disagreement_is_explained_and_every_explanation_needed(report: list[Row]) -> None:
    """The table neither hides a disagreement nor keeps the explanation of one that is gone."""
    unexplained = [(row.archive, row.series, row.found) for row in report if not row.agrees and not row.explained]
    outdated = [(row.archive, row.series) for row in report if row.agrees and row.explained]
    assert (unexplained, outdated) == ([], [])


def test_no_real_series_is_taken_for_a_role_it_is_not(report: list[Row]) -> None:
    """A role missed costs a scan; a role wrongly given costs a trend, so of these there is none."""
    roles = {"T1", "T1c", "T2", "FLAIR"}
    assert [row for row in report if row.found in roles and not row.agrees] == []
