"""Two real FLAIR scans of one patient, as NIfTI, become a cohort. Needs DICOM_NODE_REAL_DATA."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from inference.training.cohort_table import read_table
from inference.training.eligibility import Rule
from inference.training.prepare import Space
from inference.training.prepared_cohort import prepare_table
from inference.training.quality_sheet import margin, write_quality

ROOT = os.environ.get("DICOM_NODE_REAL_DATA")
pytestmark = [pytest.mark.peer, pytest.mark.skipif(ROOT is None, reason="DICOM_NODE_REAL_DATA is not set")]


def test_two_real_scans_of_one_patient_come_to_lie_on_each_other(tmp_path: Path) -> None:
    """Each is registered to the template by itself; 203 days apart, the brain is nearly the same (our dates)."""
    raw = Path(str(ROOT)) / "longitudinal_ms" / "patient01" / "raw"
    table = tmp_path / "table.csv"
    table.write_text(
        "patient,scan_date,FLAIR,last_follow_up,sex,age\n"
        f"1,2020-01-01,{raw / 'study1_FLAIR.nii.gz'},2022-01-01,F,20\n"
        f"1,2020-07-22,{raw / 'study2_FLAIR.nii.gz'},,,\n"
    )
    done = prepare_table(
        read_table(table, today=date(2026, 1, 1)),
        tmp_path / "cohort",
        rule=Rule(role="FLAIR", surgery_needed=False),
        space=Space(role="FLAIR", shape=(48, 64, 48)),
        workers=2,
    )
    assert done.cohort.days.tolist() == [-203, 0]
    assert [each.status for each in done.records] == ["included", "included"]
    assert all(margin(each) > 0.1 for each in done.records)
    one, other = done.cohort.volumes
    both = (one > 0) & (other > 0)
    assert 2 * both.sum() / ((one > 0).sum() + (other > 0).sum()) > 0.95
    assert np.corrcoef(one[both], other[both])[0, 1] > 0.7
    write_quality(tmp_path / "cohort", done.records)
    assert (tmp_path / "cohort" / "quality.html").read_text().count("<img") == 2
