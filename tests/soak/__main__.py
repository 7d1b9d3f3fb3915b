"""Long runs against a real node: `python -m tests.soak crash | power-loss | steady --help`."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tests.soak import crash as crashes
from tests.soak import power_loss as power_losses
from tests.soak import steady as steadies
from tests.soak.inject.kill_points import POINTS
from tests.soak.inject.mutants import MUTANTS

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Work here; default: in a temporary folder."
)
JSON = click.option("--json", "report_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report.")
SEED = click.option("--seed", type=int, default=1, show_default=True)


@click.group()
def main() -> None:
    """Run a real node for long, under load and under attack, and ask whether its promises held."""


@main.command()
@click.option("--kills", type=int, default=200, show_default=True)
@click.option("--patients", type=int, default=50, show_default=True)
@SEED
@click.option("--minutes", type=float, default=60, show_default=True, help="Stop killing then, and let all end.")
@click.option("--patience", "patience_s", type=float, default=60, show_default=True, help="Seconds for a point.")
@click.option("--point", "points", multiple=True, type=click.Choice(POINTS), help="Kill only there; default: all.")
@click.option("--mutant", type=click.Choice(MUTANTS), help="Break a promise on purpose: the run must say so.")
@click.option("--real-model/--digest-model", help="The shipped model, or a function of the inputs' digests (default).")
@FOLDER
@JSON
def crash(folder: Path | None, report_file: Path | None, points: tuple[str, ...], **options: Any) -> None:
    """Kill processes of the node at named points and at random. In the folder of an earlier run it goes on."""
    plan = crashes.Plan(points=points or POINTS, **options)
    _conclude(folder, report_file, lambda where: crashes.Crash(plan=plan, folder=where).run(), crashes.table)


@main.command()
@click.option("--patients", type=int, default=6, show_default=True)
@click.option("--cuts", type=int, default=400, show_default=True, help="How often the power is cut in the replay.")
@click.option("--restarts", type=int, default=4, show_default=True, help="Cuts after which a node goes on to the end.")
@click.option("--role", type=click.Choice(["listener"]), help="Reception alone; default: the whole node.")
@SEED
@click.option("--mutant", type=click.Choice(MUTANTS), help="Break a promise on purpose: the run must say so.")
@FOLDER
@JSON
def power_loss(folder: Path | None, report_file: Path | None, **options: Any) -> None:
    """Record every write of a node, drop what was not synced at random cuts, and open what is left."""
    plan = power_losses.Plan(**options)
    _conclude(folder, report_file, lambda where: power_losses.PowerLoss(plan, where).run(), power_losses.table)


@main.command()
@click.option("--minutes", type=float, default=60, show_default=True)
@click.option("--studies-per-minute", type=float, default=10, show_default=True)
@SEED
@click.option("--real-model/--digest-model", help="The shipped model, or a function of the inputs' digests (default).")
@click.option("--heads", is_flag=True, help="Series of synthetic heads, as the model needs them, in place of noise.")
@FOLDER
@JSON
def steady(folder: Path | None, report_file: Path | None, **options: Any) -> None:
    """Load a node steadily and see whether anything grows; leaves steady.png and report.json in the folder."""
    plan = steadies.Plan(**options)
    _conclude(folder, report_file, lambda where: steadies.Steady(plan, where).run(), steadies.table)


def _conclude(
    folder: Path | None,
    report_file: Path | None,
    run: Callable[[Path], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Run, print the table, write the report; exit 1 where a promise was broken."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whatever was started is ended
    where = folder or Path(tempfile.mkdtemp(prefix="soak-"))
    click.echo(f"working in {where}")
    report = run(where.resolve())
    text = json.dumps(report, indent=1)
    (where / "report.json").write_text(text, encoding="utf-8")
    if report_file is not None:
        report_file.write_text(text, encoding="utf-8")
    click.echo(table(report))
    for promise, found in report.get("broken", {}).items():
        for each in found:
            click.echo(f"broken: {promise}: {each}", err=True)
    sys.exit(0 if report["verdict"] in {"kept", "flat"} else 1)


if __name__ == "__main__":
    main()
