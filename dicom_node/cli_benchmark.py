"""`benchmark`: the figures of the README, with peers side by side in one run; tables for people, the rest as JSON."""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from dicom_node.cli_options import fail
from dicom_node.errors import ConfigError, NodeError, PeerError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dicom_node.benchmark.servers import Server

json_option = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write medians, ratios and every round.",
)
folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Work under this folder: its file system is what is measured.  [default: the system's for temporary files]",
)


@click.group()
def benchmark() -> None:
    """Measure the node beside its peers, on loopback, all in one run."""


def _numbers(_context: click.Context, _option: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in value.split(","))
    except ValueError as error:
        raise click.BadParameter("expected whole numbers with commas between them") from error
    if not found or min(found) < 1:
        raise click.BadParameter("expected numbers above 0")
    return found


@benchmark.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--series", type=click.IntRange(1), default=16, show_default=True, help="How many series to send.")
@click.option("--slices", type=click.IntRange(1), default=176, show_default=True, help="Instances of a series.")
@click.option(
    "--associations", callback=_numbers, default="1,2,4", show_default=True, help="How many senders at a time."
)
@click.option("--engine", "engine_names", multiple=True, help="Of receive.engine; may stand twice.  [default: all]")
@click.option("--peer", "peer_names", multiple=True, help="orthanc, storescp, pynetdicom.  [default: all]")
@click.option("--nagle/--no-nagle", default=True, show_default=True, help="Also with DCMTK and Orthanc as installed.")
@click.option("--while-inferring", is_flag=True, help="Also beside a niced inference load.")
@click.option("--plot", "plot_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@folder_option
@json_option
def ingest(  # noqa: PLR0913 - one parameter per option
    *,
    rounds: int,
    series: int,
    slices: int,
    associations: tuple[int, ...],
    engine_names: tuple[str, ...],
    peer_names: tuple[str, ...],
    nagle: bool,
    while_inferring: bool,
    plot_file: Path | None,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Receive MR images from DCMTK's storescu, durably, beside Orthanc, DCMTK's storescp and pynetdicom's.

    Every round starts each receiver on an empty folder, in the order A B C, then C B A, and compares what it stored
    with what was sent. Ratios are ours over theirs.
    """
    from dicom_node.benchmark import images, ingest_figures, machine  # noqa: PLC0415 - slow to load
    from dicom_node.benchmark import ingest as measured  # noqa: PLC0415 - slow to load

    if max(associations) > series:
        raise click.BadParameter(f"each association sends a series at least: {series}", param_hint="--associations")
    servers, left_out = _servers(engine_names, peer_names)
    settings = [measured.Setting(associations=each) for each in associations]
    settings += [measured.Setting(associations=associations[0], nagle=True)] if nagle else []
    settings += [measured.Setting(associations=associations[0], inferring=True)] if while_inferring else []
    plan = measured.Plan(
        servers=servers, settings=settings, rounds=rounds, amount=images.Amount(series=series, slices=slices)
    )
    with _measuring(folder) as (work, say):
        surroundings = machine.describe(work)
        found = ingest_figures.summarize(measured.run(plan, work, say))
    _leave(
        {"benchmark": "ingest", "machine": surroundings, "left_out": left_out, **found},
        json_file,
        ingest_figures.lines(found),
    )
    if plot_file is not None:
        ingest_figures.plot(found, plot_file)


@benchmark.command()
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="After one to warm up.")
@click.option("--slices", type=click.IntRange(1), default=60, show_default=True, help="Frames of the saliency.")
@folder_option
@json_option
def sending(*, rounds: int, slices: int, folder: Path | None, json_file: Path | None) -> None:
    """Send a report with its saliency to Orthanc, beside DCMTK's storescu; with and without Nagle's algorithm."""
    from dicom_node.benchmark import machine, servers  # noqa: PLC0415 - slow to load
    from dicom_node.benchmark import sending as measured  # noqa: PLC0415 - slow to load

    if not servers.orthanc().is_installed or not Path(servers.STORESCU).is_file():
        fail(NodeError("Orthanc and DCMTK are needed (Debian packages orthanc, dcmtk)"))
    with _measuring(folder) as (work, say):
        surroundings = machine.describe(work)
        found = measured.summarize(measured.run(rounds, slices, work, say))
    _leave({"benchmark": "sending", "machine": surroundings, **found}, json_file, measured.lines(found))


@benchmark.command()
@click.option("--rows", "sizes", callback=_numbers, default="10000,100000,1000000", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--series", type=click.IntRange(1), default=4, show_default=True, help="How many to receive each time.")
@click.option("--slices", type=click.IntRange(1), default=176, show_default=True, help="Instances of a series.")
@click.option("--engine", help="Of receive.engine.  [default: the node's]")
@folder_option
@json_option
def scale(
    *,
    sizes: tuple[int, ...],
    rounds: int,
    series: int,
    slices: int,
    engine: str | None,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Receive into nodes with ever more instances in their ledgers; time the tick and `status` on them too.

    A million instances take about 5 GB of the folder while it lasts, and a million links to one image.
    """
    from dicom_node.benchmark import images, machine, servers  # noqa: PLC0415 - slow to load
    from dicom_node.benchmark import scale as measured  # noqa: PLC0415 - slow to load

    _require_storescu()
    amount = images.Amount(series=series, slices=slices)
    with _measuring(folder) as (work, say):
        surroundings = machine.describe(work)
        chosen = engine or servers.engines()[0]
        found = measured.run(sorted(sizes), rounds, amount, work, engine=chosen, say=say)
    summary = measured.summarize(found)
    _leave({"benchmark": "scale", "machine": surroundings, **summary}, json_file, measured.lines(summary))


@benchmark.command("end-to-end")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--time-points", type=click.IntRange(2), default=4, show_default=True, help="Studies of the patient.")
@click.option("--task", default="glioma-recurrence", show_default=True, help="A shipped task, or the path of one.")
@click.option("--quiet-period-s", type=click.FloatRange(0.5), default=3.0, show_default=True)
@folder_option
@json_option
def end_to_end(
    *,
    rounds: int,
    time_points: int,
    task: str,
    quiet_period_s: float,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Time the way from the last image received to the report in the archive: cold, and with one new time point."""
    from dicom_node.benchmark import end_to_end as measured  # noqa: PLC0415 - slow to load
    from dicom_node.benchmark import machine  # noqa: PLC0415 - slow to load

    _require_storescu()
    with _measuring(folder) as (work, say):
        surroundings = machine.describe(work)
        say("making the patient's studies")
        story = measured.prepare(work, task=task, time_points=time_points, quiet_period_s=quiet_period_s)
        found = measured.summarize(measured.run(story, rounds, work, say))
    _leave({"benchmark": "end-to-end", "machine": surroundings, **found}, json_file, measured.lines(found))


def _require_storescu() -> None:
    from dicom_node.benchmark.servers import STORESCU  # noqa: PLC0415 - goes with the others

    if not Path(STORESCU).is_file():
        fail(NodeError(f"{STORESCU}: DCMTK's sender is not installed (Debian package dcmtk)"))


def _servers(engine_names: Sequence[str], peer_names: Sequence[str]) -> tuple[list[Server], dict[str, str]]:
    """Return who receives, our node first, and whom this machine lacks, with the reason."""
    from dicom_node.benchmark import servers  # noqa: PLC0415 - slow to load

    unknown = {*engine_names} - {*servers.engines()} | {*peer_names} - {*servers.PEERS}
    if unknown:
        known = ", ".join((*servers.engines(), *servers.PEERS))
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; known: {known}")
    _require_storescu()
    peers = [make() for name, make in servers.PEERS.items() if name in (peer_names or servers.PEERS)]
    left_out = {each.name: f"{each.program} is not installed" for each in peers if not each.is_installed}
    for name, reason in left_out.items():
        click.echo(f"{name} is left out: {reason}", err=True)
    ours = [servers.node(name) for name in engine_names or servers.engines()]
    return [*ours, *(each for each in peers if each.is_installed)], left_out


@contextmanager
def _measuring(folder: Path | None) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """Give a folder to work in, and a way to tell how far it is; end with an exit code where something fails.

    SIGTERM ends it as Ctrl-C does, with every server that it started.
    """
    console = Console(stderr=True)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="dicom-node-benchmark-", dir=folder) as work,
            console.status("starting") as spinner,
        ):

            def say(text: str) -> None:
                console.print(f"[dim]{text}[/dim]", highlight=False)
                spinner.update(text)

            yield Path(work), say
    except (ConfigError, NodeError, PeerError, UpstreamError, OSError) as error:
        fail(error)
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(
    found: dict[str, Any], json_file: Path | None, tables: Sequence[tuple[str, Sequence[Sequence[str]]]]
) -> None:
    """Print the tables, their first row being the headings, and write everything where asked for."""
    from dicom_node.benchmark.figures import write_json  # noqa: PLC0415 - goes with the others

    console = Console()
    for title, (header, *rows) in tables:
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if json_file is not None:
        write_json(json_file, found)
