"""Verbs about the phantoms themselves: `python -m inference phantom-residuals|phantom-protocol|phantom-parity`."""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from inference.phantom import make_patient
from inference.phantom.parity import served_gap
from inference.phantom.protocol import PROTOCOL, SEEDS, protocol
from inference.phantom.serving import Residual, agreement, serve
from inference.preprocess import Preprocessed, load_template

OUT = click.Path(path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FIRST_SEED = SEEDS["residuals and parity"][0]  # of the patients that are sent the whole way
_VISITS = 2


@click.command("phantom-residuals")
@click.option("--patients", type=click.IntRange(20), default=20, show_default=True, help="How many, two visits each.")
@click.option("--out", type=OUT, required=True, help="File for the measured table (JSON).")
@click.option("--work", type=OUT, required=True, help="Folder that keeps each scan's row; a second call goes on.")
def phantom_residuals(*, patients: int, out: Path, work: Path) -> None:
    """Measure what DICOM, N4 and registration leave of pose and shading; rendering draws from the table."""
    rows, alike = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + patients):
        for visit in range(_VISITS):
            rows.append(_measured(seed, visit, work))
            seen = Preprocessed.load(work / f"{seed}-{visit}.npz").array
            alike.append(agreement(make_patient(seed, n_visits=_VISITS), rows[-1], seen))
            click.echo(f"patient {seed - FIRST_SEED + 1} of {patients}, visit {visit + 1}", err=True)
    table = {
        "about": "synthetic phantoms; python -m inference phantom-residuals",
        "correlation_of_served_and_rendered": {"median": statistics.median(alike), "least": min(alike)},
        "rows": [asdict(each) for each in rows],
    }
    out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


@click.command("phantom-protocol")
@click.option(
    "--out", type=OUT, default=PROTOCOL, show_default="the package's own", help="File for the protocol (JSON)."
)
def phantom_protocol(*, out: Path) -> None:
    """Write dials, generator digest, ceilings and seeds of the splits: to be committed before any training."""
    out.write_text(json.dumps(protocol(), indent=1) + "\n", encoding="utf-8")


@click.command("phantom-parity")
@click.option("--bundle", type=FOLDER, required=True, help="Folder of the bundle.")
@click.option("--patients", type=click.IntRange(20), default=20, show_default=True, help="How many, two visits each.")
@click.option("--out", type=OUT, required=True, help="File for both answers of each patient (JSON).")
def phantom_parity(*, bundle: Path, patients: int, out: Path) -> None:
    """Compare a bundle's probabilities on phantoms sent as DICOM with those on the same phantoms as rendered."""
    made = (make_patient(FIRST_SEED + number, n_visits=_VISITS) for number in range(patients))
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for each in served_gap(bundle, made, Path(work)):
            rows.append(each)
            click.echo(f"patient {len(rows)} of {patients}", err=True)
    off = [each.served - each.rendered for each in rows]
    table = {
        "about": "synthetic phantoms; python -m inference phantom-parity",
        "mean_difference": statistics.fmean(off),
        "sd_of_difference": statistics.stdev(off),
        "largest_difference": max(abs(each) for each in off),
        "correlation": statistics.correlation([each.served for each in rows], [each.rendered for each in rows]),
        "rows": [asdict(each) for each in rows],
    }
    out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _measured(seed: int, visit: int, work: Path) -> Residual:
    """Send one visit the whole way, or recall what an earlier call measured."""
    row = work / f"{seed}-{visit}.json"
    if row.is_file():
        return Residual(**json.loads(row.read_text(encoding="utf-8")))
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        served = serve(make_patient(seed, n_visits=_VISITS), visit, Path(folder), load_template())
    served.preprocessed.save(row.with_suffix(".npz"))
    row.write_text(json.dumps(asdict(served.residual)) + "\n", encoding="utf-8")
    return served.residual
