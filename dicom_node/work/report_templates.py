"""Where a task's report template comes from: one that ships with the node, or a site's own file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.errors import ConfigError
from sr_templates.errors import TemplateError
from sr_templates.template import load_template, parse_template

if TYPE_CHECKING:
    from pathlib import Path

    from sr_templates.template import ReportTemplate


def find_template(reference: str, task_file: Path) -> ReportTemplate:
    """Return the template that a task names: `glioma_recurrence.de`, or a path `mine.yaml` seen from the task file.

    Raises:
        ConfigError: with one line per fault, each with key, value and rule.
    """
    try:
        if not reference.endswith((".yaml", ".yml")):
            return load_template(reference)
        file = (task_file.parent / reference).resolve()
        return parse_template(file.read_text(encoding="utf-8"), origin=str(file))
    except TemplateError as error:
        problems = (each.removeprefix("report template ") for each in error.problems)
        raise ConfigError(tuple(f"{task_file}: report_template: {each}" for each in problems)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError((f"{task_file}: report_template: {reference}: {error}",)) from error
