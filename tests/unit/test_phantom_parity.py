"""The answer on a rendered phantom is close to the answer on the same phantom sent as DICOM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.bundle import shipped
from inference.phantom import make_patient
from inference.phantom.parity import served_gap

if TYPE_CHECKING:
    from pathlib import Path


def test_both_ways_to_the_model_give_an_answer(tmp_path: Path) -> None:
    """One visit of thick slices: two probabilities, not the same, not far apart, and the DICOM was really written."""
    patient = make_patient(600_000, n_visits=1)
    assert not patient.visits[0].nuisance.volumetric
    (gap,) = served_gap(shipped("phantom_recurrence"), [patient], tmp_path)
    assert (gap.patient, gap.visits, gap.label) == ("PHANTOM-600000", 1, patient.label)
    assert 0 < abs(gap.served - gap.rendered) < 0.3
    assert len(list(tmp_path.rglob("*.dcm"))) > 20
