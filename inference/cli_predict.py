"""Verbs that run a bundle: `python -m inference predict|benchmark`, and `phantom`, which makes DICOM to run it on."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pydicom
import torch
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from inference.bundle import load
from inference.cli_training import FOLDER, OUT, bundle_folder
from inference.models import SIZES, build
from inference.phantom import StudyOptions, make_patient, write_patient
from inference.phantom.study import ROLES
from inference.predictor import Predictor, Scan
from inference.saliency import STEPS, attribute

_HEADER = ["AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "SeriesDate", "SeriesTime", "StudyDate"]
_SCANS = 4  # of the benchmark's patient


@click.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--bundle", default="phantom_recurrence", show_default=True, help="Shipped name, or a folder.")
@click.option("--digest", help="Expected digest of the bundle; anything else is refused.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--template", type=FOLDER, help="Folder with t1.nii.gz and mask.nii.gz (default: MNI152).")
@click.option("--cache", type=OUT, help="Folder that keeps volumes and features between calls.")
@click.option("--saliency", type=OUT, help="Folder for the newest scan's saliency map on its own slices (.npz).")
@click.option("--asked-on", type=click.DateTime(["%Y-%m-%d"]), help="Day of the question (default: today).")
def predict(
    *,
    folders: tuple[Path, ...],
    bundle: str,
    digest: str | None,
    saliency: Path | None,
    asked_on: datetime | None,
    **how: Any,  # device, template, cache: as the predictor takes them
) -> None:
    """Answer for one patient: a folder of DICOM per time point, one series in each; prints the result as JSON."""
    loaded = load(bundle_folder(bundle), expected_digest=digest)
    role = loaded.metadata.roles[0]
    scans = sorted((_scan(folder, role) for folder in folders), key=lambda each: each.acquired)
    predictor = Predictor(loaded, **how)
    prediction = predictor.predict(
        loaded.metadata.name,
        scans,
        saliency_for=(-1,) if saliency else (),
        asked_on=(asked_on or datetime.now()).date(),  # noqa: DTZ005 - the calendar day where the question is asked
        progress=lambda message: click.echo(message, err=True),
    )
    if saliency:
        saliency.mkdir(parents=True, exist_ok=True)
        for each in prediction.saliency:
            each.save(saliency / f"saliency_{each.time_point:02d}.npz")
    click.echo(prediction.result.to_json())


@click.command()
@click.option("--out", type=OUT, required=True, help="Folder; one sub-folder per study, one in it per series.")
@click.option("--seed", type=click.IntRange(0, 999_999), required=True, help="Which patient.")
@click.option("--visits", type=click.IntRange(1), help="Fix the number of visits (default: 2 to 8 are drawn).")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), default=ROLES, show_default=True)
@click.option("--objects", type=click.Choice(["classic", "enhanced"]), default="classic", show_default=True)
@click.option("--acquisition", type=click.Choice(["thick-2d", "1mm-3d"]), default="thick-2d", show_default=True)
def phantom(
    *, out: Path, seed: int, visits: int | None, roles: tuple[str, ...], objects: str, acquisition: str
) -> None:
    """Write a synthetic patient's studies as DICOM, with the truth beside them; prints the study folders."""
    options = StudyOptions(roles=tuple(roles), enhanced=objects == "enhanced", volumetric=acquisition == "1mm-3d")
    for folder in write_patient(make_patient(seed, n_visits=visits), out, options):
        click.echo(folder)


@click.command()
@click.option("--size", type=click.Choice(sorted(SIZES)), default="small", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def benchmark(size: str, device: str, rounds: int) -> None:
    """Time encoder, head and saliency for four scans with random weights; prints medians as JSON."""
    network = build(size).eval().to(device)
    volumes = torch.rand(_SCANS, 1, *SIZES[size].input_shape, device=device)
    lengths = torch.tensor([_SCANS])
    with torch.no_grad():
        features = network.encode(volumes)
        seconds = {
            "encode_4_scans_s": _median(lambda: network.encode(volumes), rounds),
            "head_s": _median(lambda: network.head(features[None], lengths), rounds),
        }
    seconds[f"saliency_{STEPS}_steps_s"] = _median(
        lambda: attribute(network, volumes[-1], features, _SCANS - 1), rounds
    )
    threads = torch.get_num_threads()
    click.echo(json.dumps({"size": size, "device": device, "threads": threads, "rounds": rounds, **seconds}))


def _median(call: Callable[[], torch.Tensor], rounds: int) -> float:
    """Return the median time of a call in seconds, after one call that is not counted."""
    call().cpu()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call().cpu()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _scan(folder: Path, role: str) -> Scan:
    """Describe the one series in a folder.

    Raises:
        click.UsageError: if the folder holds no DICOM, several series, or no date.
    """
    found = [(path, ds) for path in sorted(folder.rglob("*")) if path.is_file() and (ds := _header(path)) is not None]
    series = {str(ds.get("SeriesInstanceUID", "")) for _, ds in found}
    if len(series) != 1:
        raise click.UsageError(f"{folder}: expected the instances of one series, found {len(series)} series")
    digest = hashlib.sha256()
    for path, _ in found:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    paths = tuple(path for path, _ in found)
    return Scan(acquired=_acquired(folder, found[0][1]), series={role: paths}, digest=digest.hexdigest())


def _header(path: Path) -> Dataset | None:
    """Return the attributes that a time point is told by, or None if the file is not DICOM."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_HEADER, "SeriesInstanceUID"])
    except InvalidDicomError:
        return None


def _acquired(folder: Path, ds: Dataset) -> datetime:
    """Return when a scan was acquired, to the minute at least where the header has a time."""
    stamps = (
        str(ds.get("AcquisitionDateTime") or ""),
        str(ds.get("AcquisitionDate") or "") + str(ds.get("AcquisitionTime") or ""),
        str(ds.get("SeriesDate") or "") + str(ds.get("SeriesTime") or ""),
        str(ds.get("StudyDate") or ""),
    )
    for stamp in stamps:
        digits = stamp.split(".")[0].split("+")[0].split("-")[0]
        if len(digits) >= 8 and digits.isdigit():
            return datetime.strptime(digits[:12].ljust(12, "0"), "%Y%m%d%H%M").replace(tzinfo=UTC)
    raise click.UsageError(f"{folder}: expected an acquisition, series or study date, found none")
