"""The research side on the command line: complete help, and predict on a phantom's DICOM."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from inference.__main__ import main
from inference.bundle import bundle_digest, shipped
from inference.bundle_files import read_metadata
from inference.results import Result, SaliencyMap

OLD = "newest-scan-old"
VERBS = sorted(main.commands)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the FLAIR folders of a phantom patient of two visits, written by the `phantom` verb."""
    out = tmp_path_factory.mktemp("phantom")
    done = CliRunner().invoke(main, ["phantom", "--out", str(out), "--seed", "7", "--visits", "2", "--role", "FLAIR"])
    assert done.exit_code == 0, done.output
    folders = [Path(line) for line in done.output.splitlines()]
    return [next(path.parent for path in sorted(folder.rglob("*.dcm"))) for folder in folders]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_explained(verb: str) -> None:
    """Each verb has a sentence, and each option either a help text or a default that tells."""
    command = main.commands[verb]
    assert command.help
    for each in command.params:
        assert not isinstance(each, click.Option) or each.help or each.show_default, f"{verb} {each.name}"
    assert CliRunner().invoke(main, [verb, "--help"]).exit_code == 0


def test_the_promised_verbs_are_there() -> None:
    """What the design names."""
    promised = {"phantom", "pretrain", "finetune", "evaluate", "predict", "export", "reproduce", "benchmark"}
    assert promised <= set(VERBS)


def test_predict_answers_for_two_folders_in_any_order(studies: list[Path], tmp_path: Path) -> None:
    """Folders are put in the order of acquisition; the result is JSON on stdout, the map a file."""
    folders = [str(each) for each in reversed(studies)]
    options = ["--device", "cpu", "--cache", str(tmp_path / "cache")]
    digest = bundle_digest(shipped("phantom_recurrence"))
    done = CliRunner().invoke(
        main,
        ["predict", *folders, *options, "--saliency", str(tmp_path), "--digest", digest, "--asked-on", "2019-01-01"],
    )
    assert done.exit_code == 0, done.output
    result = Result.from_json(done.stdout.strip())
    assert len(result.trajectory) == 2
    assert result.trajectory[0].acquired < result.trajectory[1].acquired
    assert SaliencyMap.load(tmp_path / "saliency_01.npz").time_point == 1
    check_the_day_of_the_question([*folders, *options], result)


def check_the_day_of_the_question(arguments: list[str], asked_before: Result) -> None:
    """A newest scan is old where the question is asked years later, today where no day is given."""
    assert OLD not in {each.code for each in asked_before.flags}
    years_later = CliRunner().invoke(main, ["predict", *arguments, "--asked-on", "2099-01-01"])
    assert OLD in {each.code for each in Result.from_json(years_later.stdout.strip()).flags}
    by_default = CliRunner().invoke(main, ["predict", *arguments])
    age = datetime.now(UTC).date() - asked_before.trajectory[-1].acquired
    longest = read_metadata(shipped("phantom_recurrence")).training_ranges.gap_days[1]
    assert (OLD in {each.code for each in Result.from_json(by_default.stdout.strip()).flags}) == (age.days > longest)


def test_a_folder_of_two_series_is_refused(studies: list[Path]) -> None:
    """A time point is one series; the message says how many were found."""
    common = str(studies[0].parent.parent)
    done = CliRunner().invoke(main, ["predict", common])
    assert done.exit_code == 2
    assert "found 2 series" in done.output


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    """Nothing to read is a wrong call."""
    (tmp_path / "notes.txt").write_text("no DICOM here")
    done = CliRunner().invoke(main, ["predict", str(tmp_path)])
    assert done.exit_code == 2


def test_the_benchmark_prints_its_medians() -> None:
    """Encoder, head and saliency, in seconds."""
    done = CliRunner().invoke(main, ["benchmark", "--rounds", "1"])
    assert done.exit_code == 0
    figures = json.loads(done.stdout)
    assert figures["encode_4_scans_s"] > 0
    assert figures["head_s"] < figures["saliency_8_steps_s"]
