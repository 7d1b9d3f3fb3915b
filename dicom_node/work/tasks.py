"""The tasks a node serves: each with its bundle found, digested and held against its pin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.errors import ConfigError
from dicom_node.resources import task_file
from dicom_node.timeline.task import Task, load_task
from dicom_node.work.agreement import contradictions, differences
from dicom_node.work.report_templates import find_template
from inference import bundle_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sr_templates.template import ReportTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTask:
    """A task with the model that answers it."""

    task: Task
    bundle_folder: Path
    bundle_digest: str
    template: ReportTemplate  # how its reports are worded and coded
    synthetic: bool  # trained on phantoms: delivers for phantoms only (invariant 10)
    saliency: bundle_files.SaliencyEvidence | None  # what a check of the model's maps found
    remarks: tuple[str, ...] = ()  # where its rule for scans is not the one that the network was trained under

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name


def load_tasks(entries: Iterable[str]) -> dict[str, ServedTask]:
    """Load every task of the configuration with its bundle.

    Raises:
        ConfigError: with one line per problem of any task file or bundle.
    """
    served: dict[str, ServedTask] = {}
    problems: list[str] = []
    for entry in entries:
        try:
            found = _serve(task_file(entry))
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if found.name in served:
            problems.append(f"tasks: {found.name!r} is given more than once")
        served[found.name] = found
    if problems:
        raise ConfigError(tuple(problems))
    return served


def _serve(file: Path) -> ServedTask:
    task = load_task(file)
    reference = task.bundle
    try:
        folder = (
            bundle_files.shipped(reference.name) if reference.name else (file.parent / str(reference.path)).resolve()
        )
        digest = bundle_files.bundle_digest(folder)
    except (bundle_files.BundleError, OSError) as error:
        raise ConfigError((f"{file}: bundle: {error}",)) from error
    if reference.digest is not None and reference.digest != digest:
        raise ConfigError((f"{file}: bundle.digest: expected {reference.digest}, found {digest} in {folder}",))
    try:
        metadata = bundle_files.read_metadata(folder)
    except bundle_files.BundleError as error:
        raise ConfigError((f"{file}: bundle: {error}",)) from error
    template = find_template(task.report_template, file)
    _check_agreement(file, task, metadata, template)
    return ServedTask(
        task=task,
        bundle_folder=folder,
        bundle_digest=digest,
        template=template,
        synthetic=metadata.synthetic_training_data,
        saliency=metadata.saliency,
        remarks=tuple(f"{file}: {each}" for each in differences(task, metadata)),
    )


def _check_agreement(file: Path, task: Task, metadata: bundle_files.Metadata, template: ReportTemplate) -> None:
    """Refuse a task that asks of its bundle what the bundle was not made for."""
    problems = [f"{file}: {each}" for each in contradictions(task, metadata)]
    if task.horizon_days is not None and task.horizon_days != metadata.horizon_days:
        found = task.horizon_days
        problems.append(f"{file}: horizon_days = {found}: the bundle answers for {metadata.horizon_days} days")
    wordless = sorted({each.name for each in metadata.outputs} - set(template.outputs))
    problems += [f"{file}: report_template: expected words for the output {each}, found none" for each in wordless]
    if problems:
        raise ConfigError(tuple(problems))
