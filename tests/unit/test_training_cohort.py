"""A cohort is written whole, read back as it was, and says what was known of each patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.phantom import make_patient, render_model_space
from inference.training.cohort import PatientScans, is_written, open_cohort, write_cohort
from inference.training.labels import label_at
from inference.training.phantoms import Drawing, render_cohort
from tests.factories.cohorts import cohort_of

SHAPE = (12, 16, 12)


def test_a_rendered_cohort_is_the_phantoms_of_its_seeds(tmp_path: Path) -> None:
    """Volumes, days and labels are the generator's; only the newest six of many visits are kept."""
    told: list[None] = []
    drawing = Drawing(shape=SHAPE, n_visits=7)
    cohort = render_cohort(tmp_path, [5, 6], drawing, workers=1, advance=lambda: told.append(None))
    patient = make_patient(6, n_visits=7)
    assert (len(cohort), cohort.volumes.shape, len(told)) == (2, (12, *SHAPE), 2)
    newest = np.rint(render_model_space(patient, 6, shape=SHAPE) * 255)
    assert np.array_equal(cohort.volumes[11], newest.astype(np.uint8))
    assert cohort.days[6:].tolist() == list(patient.history.visit_days[1:])
    assert cohort.labels[1] == (-1 if patient.label is None else patient.label)
    assert np.array_equal(open_cohort(tmp_path).volumes, cohort.volumes)


def _patient(scans: int, dtype: str = "float32") -> PatientScans:
    days = tuple(range(-100 * (scans - 1), 1, 100))
    volumes = np.zeros((scans, 2, 2, 2), dtype=dtype)
    return PatientScans(patient="p", volumes=volumes, days=days, event_day=None, follow_up_day=400)


def test_scans_that_do_not_fit_leave_no_cohort(tmp_path: Path) -> None:
    """A torn folder is no cohort, and the message names patient, expectation and find."""
    with pytest.raises(ValueError, match="patient number 2"):
        write_cohort(tmp_path, [_patient(2), _patient(2, "uint8")])
    assert not is_written(tmp_path)


def test_a_cut_volume_file_is_noticed(tmp_path: Path) -> None:
    """The index knows how many bytes there must be."""
    write_cohort(tmp_path, [_patient(3)])
    with (tmp_path / "volumes.bin").open("r+b") as file:
        file.truncate(50)
    with pytest.raises(ValueError, match="expected 96 bytes, found 50"):
        open_cohort(tmp_path)


def test_the_first_patients_of_a_cohort_are_a_cohort() -> None:
    """Scans, days, outcomes stay together."""
    cohort = cohort_of(np.zeros((9, 2, 2, 2), dtype=np.uint8), [[-9, 0], [0], [-5, -4, 0], [-1, 0]], [1, 0, -1, 0])
    few = cohort.head(3)
    assert (len(few), len(few.volumes), len(few.days), len(few.first)) == (3, 6, 6, 4)
    assert few.labels.tolist() == [1, 0, -1]
    assert few.labelled().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("day", "event_day", "follow_up_day", "label"),
    [
        (0, 365, 365, True),
        (0, 366, 366, False),
        (-10, 356, 356, False),
        (0, None, 365, False),
        (0, None, 364, None),
        (-1, None, 364, False),
    ],
)
def test_a_label_is_what_was_known(day: int, event_day: int | None, follow_up_day: int, label: bool | None) -> None:
    """An event within 365 days is a yes, 365 days without one a no, anything else unknown."""
    assert label_at(day, event_day=event_day, follow_up_day=follow_up_day) is label


def test_a_scan_on_or_after_the_event_has_no_label() -> None:
    """It must never be an input."""
    with pytest.raises(ValueError, match="expected scans before the event"):
        label_at(100, event_day=100, follow_up_day=100)
