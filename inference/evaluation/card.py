"""The model card in Markdown: what the bundle is, how it scores, and what must not be concluded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.bundle import Score
    from inference.training.release import Release

_TEXT = """# phantom_recurrence {version}

**Trained on synthetic phantoms only. Not a medical device, not for patients.** Its number says nothing about a human;
a node delivers its reports for phantom-marked patients only.

## What it is

A small version of the temporal network of Tak et al. (NEJM AI 2025, 10.1056/AIoa2400703): one 3-D ResNet18 for every
FLAIR scan, 8-head self-attention over scans, LSTM, linear layer. It answers one question: recurrence within 365 days
after the last scan. Trained in the published order: binary order verification, then recurrence, end to end.

Published: architecture, pretext, single-channel FLAIR, template registration, min-max, last 6 scans at most.
Ours: width 16 instead of 64, input 48 x 64 x 48 without its empty margin, stem of 5 voxels, LSTM of 128; an intensity
window that keeps what is brighter than 1.2 times the brain's mean, so dark cavities are not seen; masks instead of zero
padding; a residual around the attention; standardised features; an ensemble of 3 heads over one encoder; every
truncation to the last 1 to 6 scans is a training example; AdamW with one cycle, the heads refined on resting features;
left-right mirroring; Platt scaling. The window was chosen on validation phantoms, where it makes lesions easy to find:
an advantage that no real scan grants. No volume, mask or date is ever a target or an input.

## Training data

{training_data},
directly in the model's space (residual misregistration, bias, noise and thick slices included). Gaps of
{gap_low:.0f} to {gap_high:.0f} days, slices of {thin:.0f} to {thick:.0f} mm, up to {most} scans.
Reproduce with

    {command}

(2 CPU cores; the same seeds give the same data; weights may differ in the last bits between CPUs and thread counts).

## How it scores on unseen phantoms

{n_test} patients with 6 visits each, seeds never used in training; those censored before 365 days are left out. AUROC
with the 95 % interval of 1,000 bootstrap samples of patients. The ceiling is the AUROC of an ideal reader who knows
the true lesion volumes and dates; no network can beat it but by chance. Efficiency is (AUROC - 0.5) / (ceiling - 0.5).

| last scans | patients | AUROC (95 %) | ceiling | efficiency | Brier | ECE (5 bins) |
|---|---|---|---|---|---|---|
{rows}

Calibration: slope {slope:.3f}, intercept {intercept:.3f}, fitted on other phantoms (last 3 to 6 scans pooled).

| operating point | threshold | sensitivity | specificity |
|---|---|---|---|
{points}

## What this does not show

That a single scan cannot know the outcome is built into the phantoms, not discovered. Scans were rendered in model
space, not read from DICOM and registered; what real preprocessing costs is not in this table (in a spot check of four
phantoms, probabilities through DICOM and through model space differed by 0.03 on average, 0.17 at most). Gaps between
scans are independent of the outcome here; in a clinic they are not. No real tumour, scanner or treatment was seen. The
interval that a report shows is the spread of heads that share one encoder, hence too narrow.
"""


def model_card(about: Release, *, n_test: int, command: str) -> str:
    """Return the card of a release."""
    return _TEXT.format(
        version=about.version,
        training_data=about.training_data,
        gap_low=about.ranges.gap_days[0],
        gap_high=about.ranges.gap_days[1],
        thin=about.ranges.slice_thickness_mm[0],
        thick=about.ranges.slice_thickness_mm[1],
        most=about.ranges.n_scans[1],
        command=command,
        n_test=n_test,
        rows="\n".join(_row(each) for each in about.scores),
        slope=about.calibration.slope,
        intercept=about.calibration.intercept,
        points="\n".join(
            f"| {each.name} | {each.threshold:.2f} | {each.sensitivity:.2f} | {each.specificity:.2f} |"
            for each in about.operating_points
        ),
    )


def _row(score: Score) -> str:
    ceiling, efficiency = "-", "-"
    if score.ceiling_auroc is not None:
        ceiling = f"{score.ceiling_auroc:.2f}"
        efficiency = f"{(score.auroc - 0.5) / (score.ceiling_auroc - 0.5):.2f}"
    interval = f"{score.auroc:.3f} ({score.auroc_lower:.2f}-{score.auroc_upper:.2f})"
    return (
        f"| {score.n_scans} | {score.n_patients} | {interval} | {ceiling} | {efficiency} "
        f"| {score.brier:.3f} | {score.ece:.3f} |"
    )
