"""What every verb that reads cohorts asks first: is it there, which part of it, on which grid, who else has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import torch

from inference.models.temporal import TemporalNetwork
from inference.training.arms import Arm, Effort, configuration
from inference.training.cohort import open_cohort
from inference.training.parts import in_parts, named_parts
from inference.training.splits import TEST, SplitError, read_split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from inference.training.cohort import Cohort
    from inference.training.splits import Split


def read_cohort(folder: Path) -> Cohort:
    """Open a cohort; a folder that holds none ends the command."""
    try:
        return open_cohort(folder)
    except OSError as error:
        raise click.ClickException(
            f"{folder}: expected a cohort as `prepare` or `cohort` writes it, found none"
        ) from error
    except (ValueError, KeyError) as error:
        raise click.ClickException(f"{folder}: expected a cohort, found {error}") from error


def split_file(path: Path | None) -> Split | None:
    """Read the split where there is one."""
    try:
        return None if path is None else read_split(path)
    except SplitError as error:
        raise click.UsageError(str(error)) from error


def read_part(folder: Path, split: Split | None, part: str, *, unlocked: bool = False) -> Cohort:
    """Open a cohort in part, or whole where there is no split; the test opens only for who has unlocked it."""
    cohort = read_cohort(folder)
    if split is None:
        return cohort
    try:
        names = named_parts(split, part)
        if TEST not in names or unlocked:
            return in_parts(cohort, split, names)
    except SplitError as error:
        raise click.UsageError(str(error)) from error
    raise click.UsageError(f"{folder}: part {TEST!r} is locked; only `evaluate --final` opens it")


def refuse_shared(one: Cohort, other: Cohort, names: tuple[str, str]) -> None:
    """Refuse two cohorts with a patient in common: a figure on those who were learnt from flatters."""
    if shared := set(one.patients.tolist()) & set(other.patients.tolist()):
        raise click.UsageError(f"{' and '.join(names)}: expected different patients, found {len(shared)} in both")


def refuse_other_grid(cohort: Cohort, shape: Sequence[int], name: str) -> None:
    """Refuse scans that a network of this input shape (Z, Y, X) was not made for; it would read them without a word."""
    if (found := tuple(cohort.volumes.shape[1:])) != tuple(shape):
        raise click.UsageError(f"{name}: expected scans of {tuple(shape)} voxels as the network reads, found {found}")


def refuse_unwritable(path: Path, option: str) -> None:
    """Refuse a file that cannot be written in the end, before hours are spent on it."""
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder {path.parent}"
        raise click.UsageError(f"{option}: expected a file in a folder that exists, found {found}")


def make_folder(path: Path, option: str) -> None:
    """Make a folder before hours are spent on what goes there, or a test is opened for it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{option}: expected a folder that can be written, found {error.strerror}") from error


def load_state(path: Path) -> dict[str, Tensor]:
    """Load weights by name, nothing but tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the edge: any bytes may lie there, and unpickling them fails in any way
        raise click.UsageError(f"{path}: expected weights, found {type(error).__name__}") from error
    if not isinstance(state, dict) or "encoder.conv1.weight" not in state:
        raise click.UsageError(f"{path}: expected weights as `pretrain` and `finetune` write them, found others")
    return state


def load_network(path: Path, size: str) -> TemporalNetwork:
    """Load one network; its width, and whether it reads when scans were acquired, are read off the weights."""
    state = load_state(path)
    width = int(state["encoder.conv1.weight"].shape[0])
    arm = Arm.GAP if any(".gap." in name for name in state) else Arm.ORDER
    network = TemporalNetwork(configuration(arm, Effort(size=size, width=width)))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise click.UsageError(f"{path}: expected weights of size {size!r}, found others") from error
    return network.eval()
