"""`python -m tests.fuzz`: cases by the hundred thousand, one case again, the corpus, or hostile peers.

python -m tests.fuzz --cases 100000 --seed 1 --keep FOLDER
python -m tests.fuzz --target pdu --cases 1 --from 4711 --seed 1
python -m tests.fuzz --hostile
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tests.fuzz import campaign, hostile
from tests.fuzz.targets import TARGETS


@click.command()
@click.option(
    "--cases", type=click.IntRange(min=1), default=2000, show_default=True, help="How many, over all targets."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same cases.")
@click.option(
    "--target", "targets", type=click.Choice(list(TARGETS)), multiple=True, help="Only these; may be repeated."
)
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="Number of the first case.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the cases that fail.")
@click.option("--hostile", "with_hostile_peers", is_flag=True, help="Measure a good peer beside hostile ones instead.")
@click.option("--engine", help="With --hostile: receive.engine.")
def main(
    *, cases: int, seed: int, targets: tuple[str, ...], first: int, keep: Path | None, with_hostile_peers: bool,
    engine: str | None,
) -> None:  # fmt: skip
    """Fuzz the node; exit code 1 if anything that must hold did not."""
    if with_hostile_peers:
        measured = hostile.measure(engine=engine)
        click.echo(json.dumps(measured, indent=2))
        sys.exit(0 if measured["ratio"] >= hostile.LEAST_SHARE else 1)
    found = []
    for target, count in campaign.share(cases, targets).items():
        if count:
            found.append(campaign.run(target, cases=count, seed=seed, first=first, keep=keep))
            click.echo(campaign.table(found[-1:]).splitlines()[-1], err=True)
    click.echo(campaign.table(found))
    for each in found:
        for number, what in each.defects[:20]:
            click.echo(f"\n{each.target} --seed {seed} --from {number}: {what}")
    sys.exit(1 if any(each.defects for each in found) else 0)


if __name__ == "__main__":
    main()
