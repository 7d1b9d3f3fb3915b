"""Bundles: pinned before parsed, refused with a reason, readable by MONAI, and the shipped one small and honest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from inference.bundle import CARD, BundleError, bundle_digest, load, shipped
from inference.models import TemporalNetwork, build
from tests.factories.bundles import write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a bundle with random weights."""
    torch.manual_seed(0)
    return write_bundle(tmp_path / "bundle", build("small", members=2))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_bundle_loads_under_its_digest(folder: Path) -> None:
    """What was saved is read back, and the card tells what it is."""
    bundle = load(folder, expected_digest=bundle_digest(folder))
    assert bundle.card.synthetic
    assert bundle.card.digest.startswith("sha256:")
    assert bundle.metadata.outputs[0].name == "recurrence_365d"
    assert isinstance(bundle.network, TemporalNetwork)
    assert len(bundle.network.heads) == 2
    assert not bundle.network.training


def test_the_digest_is_compared_before_anything_is_parsed(folder: Path) -> None:
    """A changed bundle that is not even JSON is refused for its digest."""
    digest = bundle_digest(folder)
    (folder / "configs/metadata.json").write_text("{")
    with pytest.raises(BundleError, match="expected digest sha256:"):
        load(folder, expected_digest=digest)


def test_every_file_but_the_documents_counts_for_the_digest(folder: Path) -> None:
    """The card may be reworded; a further file, a renamed one or a changed byte is another bundle."""
    digest = bundle_digest(folder)
    (folder / CARD).parent.mkdir()
    (folder / CARD).write_text("reworded")
    assert bundle_digest(folder) == digest
    (folder / "models/extra.txt").write_text("")
    assert bundle_digest(folder) != digest


def test_a_symbolic_link_is_refused(folder: Path) -> None:
    """What lies elsewhere cannot be pinned."""
    (folder / "models/link.pt").symlink_to(folder / "models/model.pt")
    with pytest.raises(BundleError, match="symbolic link"):
        bundle_digest(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message says where."""
    with pytest.raises(BundleError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("configs/metadata.json", {"surprise": 1}, "surprise"),
        ("configs/metadata.json", {"horizon_days": 0}, "horizon_days"),
        ("configs/metadata.json", {"roles": ["FLAIR", "T1"]}, "roles"),
        ("configs/metadata.json", {"input_shape": [8, 8, 8]}, "the network takes"),
        ("configs/inference.json", {"network_def": {"_target_": "os.system", "size": "small"}}, "_target_"),
        ("configs/inference.json", {"network_def": {"size": "small", "members": 3}}, "weights of this network"),
        ("configs/inference.json", {"network_def": {"size": "small", "outputs": 2}}, "outputs"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(
    folder: Path, file: str, changes: dict[str, object], reason: str
) -> None:
    """The message names file and rule."""
    _edit(folder / file, **changes)
    with pytest.raises(BundleError, match=reason):
        load(folder)


@pytest.mark.parametrize("file", ["configs/metadata.json", "configs/inference.json", "models/model.pt"])
def test_a_missing_or_broken_file_is_named(folder: Path, file: str) -> None:
    """Each of the three files is needed."""
    (folder / file).write_bytes(b"\x00broken")
    with pytest.raises(BundleError, match=Path(file).name):
        load(folder)
    (folder / file).unlink()
    with pytest.raises(BundleError, match=Path(file).name):
        load(folder)


def test_weights_that_carry_code_are_refused(folder: Path) -> None:
    """Only tensors are unpickled."""
    torch.save({"encoder.conv1.weight": Path("x")}, folder / "models/model.pt")
    with pytest.raises(BundleError, match=r"model\.pt"):
        load(folder)


def test_monai_builds_the_network_and_loads_its_weights(folder: Path) -> None:
    """The config is a MONAI Bundle's, with the same weights as our loader's."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs/inference.json"))
    parser["bundle_root"] = str(folder)
    parser["device"] = "cpu"
    parser.get_parsed_content("initialize")
    network = parser.get_parsed_content("network")
    ours = load(folder).network.state_dict()
    assert all(torch.equal(each, ours[name]) for name, each in network.state_dict().items())


def test_the_shipped_bundle_is_small_loads_and_says_that_it_is_synthetic() -> None:
    """At most 8 MB, phantom-trained, one role, with a card that says it is not for patients."""
    folder = shipped("phantom_recurrence")
    bundle = load(folder)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 8_000_000
    assert bundle.metadata.synthetic_training_data
    assert bundle.metadata.roles == ("FLAIR",)
    assert "ot for patients" in (folder / "docs/README.md").read_text()


def test_an_unknown_shipped_name_lists_what_there_is() -> None:
    """The message helps."""
    with pytest.raises(BundleError, match="phantom_recurrence"):
        shipped("none")


def test_a_copied_bundle_keeps_its_digest(folder: Path, tmp_path: Path) -> None:
    """Where the bundle lies does not matter."""
    shutil.copytree(folder, tmp_path / "copy")
    assert bundle_digest(tmp_path / "copy") == bundle_digest(folder)
