"""`dicom-node check` holds a task's rule for scans against the one that its bundle pins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from dicom_node.timeline.choose import selection_rule
from inference.bundle_files import METADATA, BundleError, read_metadata, shipped
from inference.selection import SelectionRule
from tests.factories.facts import GLIOMA

if TYPE_CHECKING:
    from click.testing import Result

TASKS = Path(__file__).parents[2] / "config" / "tasks"
SAME = selection_rule(GLIOMA)


def bundle(folder: Path, rule: SelectionRule | None) -> Path:
    """Write what a check reads of a bundle: the shipped one with another rule."""
    shutil.copytree(shipped("phantom_recurrence"), folder, ignore=shutil.ignore_patterns("docs"), dirs_exist_ok=True)
    content = json.loads((folder / METADATA).read_text())
    content["selection"] = None if rule is None else rule.model_dump(mode="json")
    (folder / METADATA).write_text(json.dumps(content))
    return folder


def check(folder: Path, rule: SelectionRule | None, **changes: dict[str, Any]) -> Result:
    """Check a node with the shipped task, some keys of some sections changed, and a bundle that pins a rule."""
    task = yaml.safe_load((TASKS / "glioma_recurrence.yaml").read_text(encoding="utf-8"))
    task["bundle"] = {"path": str(bundle(folder / "bundle", rule))}
    for section, values in changes.items():
        task[section].update(values)
    (folder / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    node = {
        "node": {"ae_title": "NODE", "data_dir": "data"},
        "receive": {"peers": [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
        "tasks": ["task.yaml"],
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(node), encoding="utf-8")
    return CliRunner().invoke(main, ["check", "--config", str(folder / "node.yaml")])


def test_a_task_that_asks_as_its_bundle_was_trained_passes_without_a_word(tmp_path: Path) -> None:
    """Only the line that says good."""
    result = check(tmp_path, SAME)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output


def test_a_bundle_without_a_rule_passes_with_a_remark(tmp_path: Path) -> None:
    """Older bundles go on working, and the hospital knows what nobody wrote down."""
    result = check(tmp_path, None)
    assert result.exit_code == 0, result.output
    assert "does not say by which rule scans were chosen in training" in result.output


@pytest.mark.parametrize(
    ("trained", "changes", "complaint"),
    [
        ({"maximum": 4}, {}, "time_points.maximum = 6: the bundle was trained on at most 4 scans"),
        ({}, {"roles": {"required": ["T1"]}}, "roles = T1: the bundle reads FLAIR"),
        ({}, {"roles": {"optional": ["T1"]}}, "roles = FLAIR, T1: the bundle reads FLAIR"),
    ],
)
def test_a_task_that_contradicts_its_bundle_is_refused(tmp_path: Path, trained, changes, complaint) -> None:
    """Both values are named, once."""
    result = check(tmp_path, SAME.model_copy(update=trained), **changes)
    assert result.exit_code == 2
    assert result.output.count(complaint) == 1


@pytest.mark.parametrize(
    ("trained", "warning"),
    [
        ({"kinds": ("post-op",)}, "time_points.kinds = follow-up: the bundle was trained with post-op"),
        ({"choose": "spread"}, "time_points.choose = last: the bundle was trained with spread"),
        ({"min_gap_days": 0}, "gates.min_gap_days = 14: the bundle was trained with 0"),
        ({"max_gap_days": None}, "gates.max_gap_days = 548: the bundle was trained with no limit"),
        ({"maximum": 8}, "time_points.maximum = 6: the bundle was trained on at most 8 scans"),
    ],
)
def test_what_else_differs_is_a_warning_with_both_values(tmp_path: Path, trained, warning) -> None:
    """The hospital decides; exactly one line for one difference."""
    result = check(tmp_path, SAME.model_copy(update=trained))
    assert result.exit_code == 0, result.output
    assert [line for line in result.output.splitlines() if line.startswith("warning: ")] == [
        f"warning: {tmp_path / 'task.yaml'}: {warning}"
    ]


@pytest.mark.parametrize("changes", [{"roles": ("T1",)}, {"kinds": ()}, {"maximum": None}])
def test_a_bundle_pins_a_whole_rule_or_none(tmp_path: Path, changes) -> None:
    """Roles as the network reads, kinds, and a maximum."""
    with pytest.raises(BundleError, match="selection: expected roles"):
        read_metadata(bundle(tmp_path, SAME.model_copy(update=changes)))


def test_the_rule_says_how_many_scans_the_network_is_shown(tmp_path: Path) -> None:
    """Where there is none, as many as training had."""
    assert read_metadata(bundle(tmp_path / "four", SAME.model_copy(update={"maximum": 4}))).most_scans == 4
    assert read_metadata(bundle(tmp_path / "none", None)).most_scans == 6
