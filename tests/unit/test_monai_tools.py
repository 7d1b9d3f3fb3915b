"""MONAI's own tools read, check and run our bundles; the published size goes the way of any other."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from monai.bundle import ConfigParser, run, verify_metadata

from dicom_node.cli import main
from dicom_node.timeline.choose import selection_rule
from inference.bundle import Bundle, NetworkDefinition, load, save, shipped
from inference.bundle_files import INFERENCE, METADATA, read_metadata
from inference.models import SIZES, build
from tests.factories.bundles import tiny_bundle
from tests.factories.facts import CONFIG, GLIOMA

if TYPE_CHECKING:
    from pathlib import Path

TEXT, WORDS = {"type": "string", "minLength": 1}, {"type": "object", "additionalProperties": {"type": "string"}}
TENSOR = {
    "type": {"enum": ["image", "series", "tuples", "probabilities", "logits"]},
    "format": TEXT,
    "num_channels": {"type": "integer", "minimum": 1},
    "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
    "dtype": TEXT,
    "value_range": {"type": "array"},
    "is_patch_data": {"type": "boolean"},
    "channel_def": WORDS,
}


def schema() -> dict[str, Any]:
    """Return what a bundle's metadata must hold, for want of the schema that the metadata names, which is far away.

    Source: MONAI Bundle Specification, "metadata.json File".
    """
    tensors = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "object", "required": list(TENSOR), "properties": TENSOR},
    }
    versions = ("version", "monai_version", "pytorch_version", "numpy_version")
    texts = dict.fromkeys(("schema", *versions, "task", "description", "authors", "copyright"), TEXT)
    properties = {
        **texts,
        "changelog": WORDS,
        "required_packages_version": WORDS,
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": tensors, "outputs": tensors},
        },
    }
    return {"type": "object", "required": list(properties), "properties": properties}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of two small narrow networks."""
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle in the published size, saved and loaded."""
    torch.manual_seed(0)
    told = read_metadata(shipped("phantom_recurrence"))
    data_format = json.loads(json.dumps(told.network_data_format))
    data_format["inputs"]["image"]["spatial_shape"] = list(SIZES["published"].input_shape)
    changes = {
        "input_shape": SIZES["published"].input_shape,
        "network_data_format": data_format,
        "novelty": None,
        "selection": selection_rule(GLIOMA),
    }
    folder, definition = tmp_path_factory.mktemp("bundles") / "published", NetworkDefinition(size="published")
    save(folder, network=build("published"), definition=definition, metadata=told.model_copy(update=changes))
    return load(folder)


def monai_bundle(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run MONAI's command line from another folder than the bundle's."""
    command = [sys.executable, "-m", "monai.bundle", *(str(each) for each in arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_the_published_size_loads_whole(published: Bundle) -> None:
    """Its grid and features are the published ones, and every weight is the one that was drawn, to float16."""
    assert published.metadata.input_shape == (96, 128, 96)
    assert published.network.config.features == 512
    torch.manual_seed(0)
    drawn = build("published").state_dict()
    found = published.network.state_dict()
    assert list(found) == list(drawn)
    assert all(torch.equal(found[name], each.half().to(each.dtype)) for name, each in drawn.items())


def test_the_published_size_passes_the_node_s_check(published: Bundle, tmp_path: Path) -> None:
    """A task that pins it by its digest is good, with nothing to remark."""
    task = yaml.safe_load((CONFIG / "tasks" / "glioma_recurrence.yaml").read_text(encoding="utf-8"))
    task["bundle"] = {"path": str(published.folder), "digest": published.digest}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    node = {
        "node": {"ae_title": "NODE", "data_dir": "data"},
        "receive": {"peers": [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
        "tasks": ["task.yaml"],
    }
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(node), encoding="utf-8")
    result = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "node.yaml")])
    assert (result.exit_code, "warning" in result.output) == (0, False), result.output


def test_a_config_parser_builds_the_published_network_and_loads_its_weights(published: Bundle) -> None:
    """`initialize` is all it takes, and the weights are those that the node loads."""
    parser = ConfigParser()
    parser.read_config(str(published.folder / INFERENCE))
    parser["bundle_root"], parser["device"] = str(published.folder), "cpu"
    parser.get_parsed_content("initialize")
    network, ours = parser.get_parsed_content("network"), published.network.state_dict()
    assert not network.training
    assert all(torch.equal(each, ours[name]) for name, each in network.state_dict().items())


def test_the_shell_runs_initialize(small: Path, tmp_path: Path) -> None:
    """From any folder; weights of another network would end it."""
    done = monai_bundle("run", "initialize", "--config_file", small / INFERENCE, "--bundle_root", small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    another: dict[str, Any] = {"bundle_root": str(small), "network_def#width": 2}
    with pytest.warns(UserWarning, match="parsing config_file"), pytest.raises(RuntimeError):
        run("initialize", config_file=str(small / INFERENCE), **another)


def test_the_shell_verifies_the_metadata(small: Path, tmp_path: Path) -> None:
    """Against a schema that lies there already; metadata that lack a field are refused."""
    lies_there = tmp_path / "schema.json"
    lies_there.write_text(json.dumps(schema()))
    arguments = ("--meta_file", small / METADATA, "--filepath", lies_there)
    good = monai_bundle("verify_metadata", *arguments, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "verified with no error" in good.stdout + good.stderr
    content = json.loads((small / METADATA).read_text())
    del content["network_data_format"]["inputs"]["image"]["spatial_shape"]
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    digest = hashlib.sha256(lies_there.read_bytes()).hexdigest()
    bad = {"meta_file": str(tmp_path / "metadata.json"), "filepath": lies_there}
    with pytest.raises(ValueError, match="'spatial_shape' is a required property"):
        verify_metadata(**bad, hash_val=digest, hash_type="sha256")


def test_the_shell_verifies_what_goes_in_and_comes_out(small: Path, tmp_path: Path) -> None:
    """One scan of the shape that the metadata tell gives as many logits as they tell."""
    arguments = ("verify_net_in_out", "network", "--meta_file", small / METADATA, "--config_file", small / INFERENCE)
    good = monai_bundle(*arguments, "--device", "cpu", "--bundle_root", small, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "data shape of network is verified with no error" in good.stdout + good.stderr


def test_a_scan_on_its_own_is_a_time_line_of_one() -> None:
    """For whoever knows no time lines."""
    torch.manual_seed(0)
    network = build("small", members=2, width=2, own_encoders=True).eval()
    scans = torch.rand(2, 1, *SIZES["small"].input_shape)
    with torch.no_grad():
        assert torch.equal(network(scans), network(scans[:, None], torch.tensor([1, 1])))
        assert torch.equal(network(scans[None]), network(scans[None], torch.tensor([2])))
