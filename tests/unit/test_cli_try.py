"""`check --try`: the configured rules on real files, before a node uses them; nothing is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from click.testing import Result

SHIPPED = Path(__file__).parents[2] / "config" / "selection.yaml"
FLAIR = {
    "SeriesDescription": "t2_tse_dark-fluid",
    "BodyPartExamined": "BRAIN",
    "ScanningSequence": ["SE", "IR"],
    "EchoTime": "95",
    "RepetitionTime": "9000",
    "InversionTime": "2500",
    "StudyInstanceUID": "2.25.1",
}
GRID = np.diag([1.0, 1.0, 5.0, 1.0])
MY_RULE = {
    "name": "my-site-calls-it-so",
    "is": "not for the model",
    "all": [{"tag": "Text", "regex": "dark-fluid"}],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node's configuration with a copy of the shipped rules."""
    (tmp_path / "selection.yaml").write_text(SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")
    content = {
        "node": {"ae_title": "NODE", "port": 1, "data_dir": "data"},
        "receive": {"peers": [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
        "tasks": ["glioma-recurrence"],
        "selection": "selection.yaml",
    }
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two FLAIR series, thick and thin, a localizer, a note, and an image without pixels."""
    folder = tmp_path / "study"
    grey = np.ones((24, 8, 8), dtype=np.uint16)
    thin = np.diag([1.0, 1.0, 4.0, 1.0])
    write(classic_series(grey[:22], GRID, name="thick", **FLAIR), folder / "thick")
    write(classic_series(np.ones((30, 8, 8)), thin, name="thin", **FLAIR), folder / "thin")
    write(classic_series(grey[:3], GRID, name="loc", **{**FLAIR, "SeriesDescription": "localizer"}), folder / "loc")
    write(classic_series(grey[:1], GRID, name="broken", **FLAIR, PixelData=None), folder / "broken")
    (folder / "note.txt").write_text("no DICOM", encoding="utf-8")
    return folder


def check(config: Path, *arguments: object) -> Result:
    """Run the verb."""
    return CliRunner().invoke(main, ["check", "--config", str(config), *(str(each) for each in arguments)])


def tried(config: Path, study: Path) -> dict[str, Any]:
    """Run it on the study and return its only time point for the only task."""
    result = check(config, "--try", study, "--json")
    assert result.exit_code == 0, result.output
    (patient,) = json.loads(result.output)["patients"]
    (point,) = patient["tasks"]["glioma-recurrence"]["time_points"]
    return dict(point)


def _what(point: dict[str, Any]) -> dict[str, str]:
    return {each["description"]: each["is"] for study in point["studies"] for each in study["series"]}


def test_every_series_and_candidate_is_told(config: Path, study: Path) -> None:
    """The thin FLAIR is chosen, the thick one says what speaks against it."""
    point = tried(config, study)
    assert _what(point) == {"t2_tse_dark-fluid": "FLAIR", "localizer": "localizer"}
    assert [each["rank"] for each in point["candidates"]] == [0, 1]
    assert "slices 4.00 mm apart" in point["candidates"][0]["because"]
    assert "covers 10 mm less than the chosen" in point["candidates"][1]["because"]


def test_files_that_cannot_be_used_are_named_with_their_reason(config: Path, study: Path) -> None:
    """What is no DICOM and what has no pixels."""
    unread = json.loads(check(config, "--try", study, "--json").output)["unread"]
    assert unread == [
        {"file": "broken/0000.dcm", "reason": "no-pixel-data"},
        {"file": "note.txt", "reason": "not-dicom: no DICM prefix"},
    ]


def test_a_site_sees_what_its_own_rule_does(config: Path, study: Path) -> None:
    """A rule added above the others changes the role, and says so."""
    selection = config.with_name("selection.yaml")
    content = yaml.safe_load(selection.read_text(encoding="utf-8"))
    content["rules"].insert(0, MY_RULE)
    selection.write_text(yaml.safe_dump(content), encoding="utf-8")
    point = tried(config, study)
    assert _what(point)["t2_tse_dark-fluid"] == "not for the model"
    assert point["candidates"] == []
    told = check(config, "--try", study, "--rules").output
    assert "yes my-site-calls-it-so: Text regex dark-fluid (found t2 tse dark-fluid)" in told


def test_nothing_is_stored(config: Path, study: Path) -> None:
    """No ledger, no instance, and the files stay as they are."""
    before = {path: path.read_bytes() for path in study.rglob("*.dcm")}
    assert check(config, "--try", study).exit_code == 0
    assert not config.with_name("data").exists()
    assert {path: path.read_bytes() for path in study.rglob("*.dcm")} == before


def test_the_text_tells_series_rule_and_what_was_not_used(config: Path, study: Path) -> None:
    """For a person; with --rules every rule that was asked before."""
    result = check(config, "--try", study, "--rules")
    assert "localizer" in result.output
    assert "not used: note.txt: not-dicom" in result.output
    assert "no  stir: needs InversionTime between [60.0, 300.0]; found 2500" in result.output
    assert "yes flair-by-physics" in result.output


def test_a_folder_without_images_ends_with_1(config: Path, tmp_path: Path) -> None:
    """With a sentence."""
    (tmp_path / "empty").mkdir()
    result = check(config, "--try", tmp_path / "empty")
    assert result.exit_code == 1
    assert "no MR image that can be read" in result.output


def test_rules_that_are_wrong_end_with_2_before_any_file_is_read(config: Path, study: Path) -> None:
    """File, key, value and rule."""
    config.with_name("selection.yaml").write_text("rules: [{name: x, is: T1, all: [{tag: EcoTime, lt: 3}]}]\n")
    result = check(config, "--try", study)
    assert result.exit_code == 2
    assert "rules.0.all.0.tag = 'EcoTime'" in result.output


def test_its_options_need_a_folder(config: Path) -> None:
    """Else nothing would be tried."""
    assert check(config, "--rules").exit_code == 2
    assert "need --try FOLDER" in check(config, "--json").output
