"""The configuration: the example loads, and every mistake is told at once with file, key, value and rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dicom_node.errors import ConfigError
from dicom_node.settings import Settings, load

EXAMPLE = Path(__file__).parents[2] / "config" / "node.yaml"
NODE = "node: {ae_title: N, data_dir: d}\n"
OPEN = "receive: {allow_unknown_peers: true}\n"
TOP_LEVEL = {
    "node", "database", "receive", "mode", "audit", "pacs", "tasks", "selection", "inference", "web", "retention",
    "logging",
}  # fmt: skip


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    """Load a configuration that is wrong and return what is told of it."""
    path = tmp_path / "node.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value.problems


def test_the_annotated_example_loads_and_names_every_key() -> None:
    """config/node.yaml is what it claims to be: every top-level key, all of them legal."""
    assert set(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))) == TOP_LEVEL == set(Settings.model_fields)
    load(EXAMPLE)


def test_the_example_shows_the_defaults() -> None:
    """A value in the example that is not marked CHANGE is the default."""
    shown = load(EXAMPLE)
    bare = Settings.model_validate(
        {
            "node": {"ae_title": shown.node.ae_title, "data_dir": shown.node.data_dir},
            "receive": {"peers": [each.model_dump() for each in shown.receive.peers]},
            "pacs": [
                {"name": each.name, "dimse": each.dimse, "default_issuer": each.default_issuer} for each in shown.pacs
            ],
            "tasks": shown.tasks,
        }
    )
    assert shown == bare


def test_every_problem_is_told_at_once_with_file_key_value_and_rule(tmp_path: Path) -> None:
    """An unknown key, a bad port, a bad AE title and a missing key make four lines."""
    text = "node: {ae_title: 'A\\B', port: 99999}\ntaks: [x]\nreceive: {allow_unknown_peers: true}\ntasks: [x]\n"
    found = "\n".join(problems(tmp_path, text))
    assert str(tmp_path / "node.yaml") in found
    assert "node.port = 99999: Input should be less than or equal to 65535" in found
    assert "node.ae_title = 'A\\\\B'" in found
    assert "node.data_dir: Field required" in found
    assert "taks" in found
    assert "unknown key" in found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("node: [", "not valid YAML"),
        ("mode: live\nmode: shadow", "key given twice"),
        ("", "(whole file)"),
        (
            f"{NODE}receive: {{allow_unknown_peers: true, sop_classes: [Nonsense]}}\ntasks: [x]",
            "not the keyword of a storage SOP class",
        ),
        (f"{NODE}tasks: [x]", "nobody could send"),
        (
            f"{NODE}{OPEN}pacs: [{{name: a}}]\ntasks: [x]",
            "at least one of dimse, dicomweb, orthanc",
        ),
        (
            f"{NODE}{OPEN}database: {{url: mysql://x}}\ntasks: [x]",
            "expected a URL that starts with",
        ),
        (
            f"{NODE}receive: {{peers: [{{ae_title: A, hosts: [10.0.0.0/33], default_issuer: X}}]}}\ntasks: [x]",
            "receive.peers.0.hosts: Value error, '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            f"{NODE}receive: {{allow_unknown_peers: true, hl7: {{hosts: [localhost]}}}}\ntasks: [x]",
            "receive.hl7.hosts: Value error, 'localhost' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            f"{NODE}{OPEN}pacs: [{{name: a, priors: {{study_description: '('}}}}]\ntasks: [x]",
            "pacs.0.priors.study_description = '(': Value error, not a regular expression",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, told: str) -> None:
    """Each kind of mistake has words of its own."""
    assert told in "\n".join(problems(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load(tmp_path / "absent.yaml")


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A configuration means the same from whatever folder the node is started."""
    path = tmp_path / "node.yaml"
    path.write_text(
        "node: {ae_title: N, data_dir: data}\nreceive: {allow_unknown_peers: true}\ntasks: [mine.yaml]\n",
        encoding="utf-8",
    )
    found = load(path)
    assert found.node.data_dir == tmp_path / "data"
    assert found.tasks == (str(tmp_path / "mine.yaml"),)


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    """The ten lines that connect a PACS are checked against the program."""
    readme = (EXAMPLE.parents[1] / "README.md").read_text(encoding="utf-8")
    path = tmp_path / "node.yaml"
    path.write_text(readme.split("```yaml\n", 1)[1].split("```", 1)[0], encoding="utf-8")
    assert load(path).pacs[0].name == "main"
