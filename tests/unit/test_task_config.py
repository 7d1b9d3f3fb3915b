"""The task file: what may stand in it, and that the shipped one does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from dicom_node.errors import ConfigError
from dicom_node.timeline.model import Role, TimePointKind
from dicom_node.timeline.selection import load_selection
from dicom_node.timeline.task import Task, load_task
from tests.factories.facts import CONFIG, GLIOMA, a_task

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIPPED = CONFIG / "tasks" / "glioma_recurrence.yaml"


def test_the_shipped_task_is_the_published_reading() -> None:
    """FLAIR only, the last three to six follow-ups, one year."""
    assert GLIOMA.roles.required == (Role.FLAIR,)
    assert GLIOMA.time_points.kinds == (TimePointKind.FOLLOW_UP,)
    assert (GLIOMA.time_points.minimum, GLIOMA.time_points.maximum, GLIOMA.horizon_days) == (3, 6, 365)
    assert GLIOMA.eligibility.diagnosis


def _keys(model: type, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if hasattr(field.annotation, "model_fields"):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def test_every_key_stands_in_the_shipped_task_as_its_documentation() -> None:
    """The annotated example names every key (a bundle has a name or a path)."""
    text = SHIPPED.read_text(encoding="utf-8")
    missing = {key for key in _keys(Task) if not re.search(rf"\b{key}:", text)}
    assert missing == set()


def test_the_digest_names_content_and_not_comments(tmp_path: Path) -> None:
    """Comments and key order do not count, every value does."""
    content = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    plain = tmp_path / "task.yaml"
    plain.write_text(yaml.safe_dump(content, sort_keys=True), encoding="utf-8")
    assert load_task(plain).digest() == GLIOMA.digest()
    assert a_task(horizon_days=180).digest() != GLIOMA.digest()
    assert GLIOMA.digest().startswith("sha256:")


@pytest.mark.parametrize(
    ("section", "changes", "complaint"),
    [
        ("time_points", {"minimum": 7}, "time_points: Value error, minimum: expected at most maximum (6), found 7"),
        ("time_points", {"kinds": ["followup"]}, "time_points.kinds.0 = 'followup'"),
        ("roles", {"optional": ["FLAIR"]}, "every role may stand once"),
        ("roles", {"required": []}, "roles.required"),
        ("gates", {"max_gap": 3}, "gates.max_gap = 3: unknown key"),
        ("gates", {"min_gap_days": -1}, "gates.min_gap_days = -1"),
        ("bundle", {"path": "/srv/x"}, "expected exactly one of name"),
        ("bundle", {"digest": "sha256:12"}, "bundle.digest = 'sha256:12'"),
        ("eligibility", {"age_years": [9, 3]}, "expected [lowest, highest]"),
        ("eligibility", {"surgery": "not-needed"}, "expected unknown among them"),
    ],
)
def test_a_wrong_task_is_refused_with_key_value_and_rule(tmp_path: Path, section, changes, complaint) -> None:
    """Every problem is one line that begins with the file."""
    content = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    content[section].update(changes)
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    assert complaint in caught.value.problems[0]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Nobody likes to be corrected one line at a time."""
    path = tmp_path / "task.yaml"
    path.write_text("name: X Y\nhorizon_days: -1\nfoo: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    text = "\n".join(caught.value.problems)
    assert all(
        key in text for key in ("name = 'X Y'", "horizon_days = -1", "foo = 1: unknown key", "eligibility: Field")
    )


@pytest.mark.parametrize(("content", "complaint"), [("a: [", "not valid YAML"), (None, "cannot be read")])
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content, complaint) -> None:
    """So is one that is not there."""
    path = tmp_path / "selection.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        load_selection(path)
