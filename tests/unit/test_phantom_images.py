"""Tissues shine as physics says, and volumes are where and how large they should be."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from inference.phantom import ground_truth, make_patient, render, render_model_space, scan_grid
from inference.phantom.lesion import lesion_radius_mm
from inference.phantom.signal import Contrast, Sequence, Tissue, longitudinal, sequence_for, tissue_signal


def test_a_spin_echo_follows_its_equation() -> None:
    """TR = T1 leaves 1 - 1/e of the magnetisation."""
    sequence = Sequence(contrast=Contrast.SPIN_ECHO, tr_ms=1000, te_ms=10)
    assert longitudinal(sequence, 1000) == pytest.approx(1 - math.exp(-1))


def test_inversion_at_the_null_point_leaves_nothing() -> None:
    """With a long TR the signal vanishes at TI = T1 ln 2."""
    sequence = Sequence(contrast=Contrast.INVERSION_RECOVERY, tr_ms=1e6, te_ms=10, ti_ms=1000 * math.log(2))
    assert longitudinal(sequence, 1000) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("field_t", [1.5, 3.0])
@pytest.mark.parametrize("volumetric", [False, True])
def test_contrasts_are_those_a_radiologist_knows(field_t: float, volumetric: bool) -> None:
    """CSF dark on FLAIR and T1, bright on T2; tumour bright on FLAIR; enhancement on T1c only."""

    def signal(tissue: Tissue, role: str) -> float:
        return tissue_signal(tissue, sequence_for(role, volumetric=volumetric, field_t=field_t), field_t=field_t)

    assert signal(Tissue.CSF, "FLAIR") < 0.1 * signal(Tissue.WHITE, "FLAIR")
    assert signal(Tissue.CSF, "T2") > 1.8 * signal(Tissue.GREY, "T2")
    assert signal(Tissue.CSF, "T1") < signal(Tissue.GREY, "T1") < signal(Tissue.WHITE, "T1")
    assert signal(Tissue.GREY, "T2") > signal(Tissue.WHITE, "T2")
    assert signal(Tissue.TUMOUR, "FLAIR") > 1.3 * signal(Tissue.GREY, "FLAIR")
    assert signal(Tissue.ENHANCING, "T1c") > 1.5 * signal(Tissue.ENHANCING, "T1")
    assert signal(Tissue.TUMOUR, "T1c") == signal(Tissue.TUMOUR, "T1")


def test_an_unknown_role_is_refused() -> None:
    """Only the four roles have a protocol."""
    with pytest.raises(KeyError):
        sequence_for("DWI", volumetric=False, field_t=3.0)


def test_a_model_space_volume_is_normalised_and_repeatable() -> None:
    """0 to 1, background 0, the same from a pickled patient."""
    patient = make_patient(11)
    volume = render_model_space(patient, 0)
    again = render_model_space(pickle.loads(pickle.dumps(patient)), 0)
    assert volume.shape == (48, 64, 48)
    assert volume.dtype == np.float32
    assert (float(volume.min()), float(volume.max())) == (0.0, 1.0)
    assert volume[0, 0, 0] == 0
    assert np.array_equal(volume, again)


def test_the_axes_of_model_space_are_up_back_left() -> None:
    """The cerebellum lies low and behind; the brain is symmetric in x."""
    brain = render_model_space(make_patient(11), 0, "T2") > 0
    z, y, x = (np.argwhere(brain).mean(0) + 0.5) / brain.shape
    assert abs(x - 0.5) < 0.03
    lowest = np.argwhere(brain[4:12])[:, 1].mean() / brain.shape[1]
    assert lowest > y
    assert z < 0.5


def test_the_lesion_on_a_grid_has_the_volume_of_the_history() -> None:
    """Masks hold the true volume within the deformation's share."""
    patient = next(p for p in map(make_patient, range(100)) if 6 < p.visits[-1].volume_ml < 20)
    grid = scan_grid(spacing_mm=(2, 2, 2), shape=(84, 112, 96))
    masks = ground_truth(patient, -1, grid=grid)
    assert masks["lesion"].sum() * 8 / 1000 == pytest.approx(patient.visits[-1].volume_ml, rel=0.25)
    assert not (masks["enhancing"] & ~masks["lesion"]).any()
    assert 900 < masks["brain"].sum() * 8 / 1000 < 2300


def test_a_larger_lesion_has_a_larger_radius_and_none_outgrows_the_head() -> None:
    """The level is monotone in the volume and ends at the maximum."""
    lesion = make_patient(2).lesion
    radii = [lesion_radius_mm(lesion, volume, cavity_radius_mm=8) for volume in (0.01, 0.1, 1, 5, 20, 100, 1e5)]
    assert radii == sorted(radii)
    assert radii[-1] < 52


def test_the_lesion_is_brighter_than_the_brain_on_flair() -> None:
    """What the ground truth calls lesion can be seen."""
    patient = next(p for p in map(make_patient, range(100)) if 6 < p.visits[-1].volume_ml < 20)
    grid = scan_grid(spacing_mm=(4, 2, 2), shape=(42, 112, 96))
    volume, affine = render(patient, -1, "FLAIR", grid=grid)
    masks = ground_truth(patient, -1, grid=grid)
    assert np.array_equal(affine, grid.affine)
    assert volume[masks["lesion"]].mean() > 1.2 * volume[masks["brain"]].mean()
