"""`demo`: the whole story on the terminal, with progress and a short table at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from dicom_node.cli_options import fail
from dicom_node.errors import ConfigError, NodeError, UpstreamError
from sr_templates.read_report import read_report

if TYPE_CHECKING:
    from dicom_node.demo import DemoResult


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--pacs", metavar="HOST:PORT:AET", help="Use this archive instead of an embedded one.")
@click.option("--task", default="glioma-recurrence", show_default=True, help="Which task to run.")
def demo(out: Path, pacs: str | None, task: str) -> None:
    """Send a synthetic phantom patient through a real node into an archive, and fetch the report back."""
    from dicom_node.demo import run_demo  # noqa: PLC0415 - slow to load: anatomy, SciPy
    from dicom_node.demo_pacs import Archive  # noqa: PLC0415 - goes with the demo

    console = Console()
    try:
        archive = Archive.parse(pacs) if pacs else None
    except ValueError as error:
        raise click.BadParameter("expected HOST:PORT:AET", param_hint="--pacs") from error
    if (out / "data").exists():
        fail(ConfigError((f"--out: {out} holds an earlier demo; remove it or name another folder",)))
    started = time.monotonic()
    console.print("[bold]synthetic phantom demo[/bold] - nothing here is about a real patient")
    with console.status("starting") as spinner:

        def say(text: str) -> None:
            console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {text}", highlight=False)
            spinner.update(text)

        try:
            result = run_demo(out.resolve(), archive=archive, task=task, say=say)
        except (NodeError, UpstreamError) as error:
            fail(error)
    _print_end(console, result, out)


def _print_end(console: Console, result: DemoResult, out: Path) -> None:
    found = read_report(result.report)
    table = Table("scan", "date", "days after surgery", "risk when scans end here", title="time line")
    risks = dict(found.trajectory)
    for number, visit in enumerate(result.patient.visits, start=1):
        risk = risks.get(visit.acquired.strftime("%Y%m%d"), risks.get(visit.acquired.isoformat()))
        days = (visit.acquired - result.patient.surgery).days
        table.add_row(str(number), visit.acquired.isoformat(), str(days), "-" if risk is None else f"{risk:.1%}")
    console.print(table)
    console.print(
        "[bold red]synthetic phantom[/bold red]: model and patient are made up; these numbers say nothing about a human"
    )
    where = f"{result.archive.ae_title} at {result.archive.host}:{result.archive.port}"
    console.print(f"report in {where}, study {result.report.StudyInstanceUID}")
    console.print(f"files in {out}: report.dcm, saliency.dcm, summary.png, report.html, node.jsonl")
