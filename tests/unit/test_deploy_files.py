"""The files of deploy/: what they name exists, what they promise they set, and the tools that read them can."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from dicom_node import settings as node_settings
from dicom_node.cli import main
from dicom_node.ledger.database import Database
from dicom_node.observe import health, metrics
from dicom_node.web.site import RULES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "dicom-node.service"
NODE_CONFIGS = [DEPLOY / "compose" / "node.yaml", DEPLOY / "kubernetes" / "files" / "node.yaml"]
KUBERNETES_VERSION = "1.30"
WORST_EXPOSURE = 20  # of systemd-analyze security, in tenths: OK is up to 20, an unhardened service has 96
RUN_AS = 10001
METRIC = re.compile(r"\bdicom_node_[a-z_]+\b")


def read(path: Path) -> Any:
    """Return a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def objects(kind: str) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of a kind."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    found = [each for path in files for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [each for each in found if each["kind"] == kind]


def compose() -> dict[str, Any]:
    """Return the compose file."""
    found: dict[str, Any] = read(DEPLOY / "compose.yaml")
    return found


@pytest.fixture(scope="module")
def served_metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all figures that a node with an archive and an empty ledger declares."""
    folder = tmp_path_factory.mktemp("node")
    settings = node_settings.load(NODE_CONFIGS[0]).model_copy(update={"database": node_settings.Database()})
    settings = settings.model_copy(update={"node": settings.node.model_copy(update={"data_dir": folder})})
    database = Database(settings.ledger_url)
    database.migrate()
    text = metrics.exposition(health.examine(settings, database, datetime.now(UTC)), settings, refused_logins=0)
    database.close()
    return set(re.findall(r"^# TYPE (\w+)", text.decode(), re.MULTILINE))


@pytest.mark.parametrize("path", NODE_CONFIGS, ids=lambda path: path.parent.name)
def test_configurations_are_good(path: Path) -> None:
    """Every key exists, every value is allowed, no secret stands in them."""
    settings = node_settings.load(path)
    assert settings.web.enabled
    assert settings.node.host == "0.0.0.0"
    assert "password" not in yaml.safe_dump(read(path)).lower()
    assert settings.database.url is not None
    assert ":" not in settings.database.url.partition("://")[2].partition("@")[0]


def test_figures_of_alerts_and_dashboard_are_served(served_metrics: set[str]) -> None:
    """A renamed metric would silence an alert."""
    rules = read(DEPLOY / "prometheus" / "rules.yml")["groups"][0]["rules"]
    board = json.loads((DEPLOY / "grafana" / "dicom-node.json").read_text(encoding="utf-8"))
    asked = [each["expr"] for each in rules]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = {name for each in asked for name in METRIC.findall(each)}
    assert len(named) > 10
    assert named <= served_metrics, named - served_metrics


def test_alerts_say_what_to_do() -> None:
    """Every alert has a severity, and a section of the runbook with its name."""
    sections = re.findall(r"^### (.+)$", (DEPLOY / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    rules = read(DEPLOY / "prometheus" / "rules.yml")["groups"][0]["rules"]
    assert len({each["alert"] for each in rules}) == len(rules)
    for each in rules:
        assert each["labels"]["severity"] in {"info", "warning", "critical"}
        assert each["annotations"]["runbook"].capitalize() in sections


def test_alerts_fire_when_they_should() -> None:
    """Promtool runs the rules' own tests."""
    promtool = os.environ.get("DICOM_NODE_PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run(
        [promtool, "test", "rules", "rules_test.yml"],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_verbs_named_in_the_runbook_exist() -> None:
    """`dicom-node VERB [SUBVERB]` and its long options, wherever they are named."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DEPLOY / "runbook.md", UNIT))
    named = re.findall(r"dicom-node ((?:[a-z][a-z-]* ?){1,2})([^`\n|]*)", text)
    verbs = {verb.split()[0] for verb, _ in named} - {"python", "dicom-node"}
    assert len(verbs) > 10
    for words, rest in named:
        first, *others = words.split()
        if first not in main.commands:
            assert first in {"config", "create"}, f"dicom-node {first}"  # behind options of install and kubectl
            continue
        command = main.commands[first]
        if isinstance(command, click.Group) and others:
            assert others[0] in command.commands, f"dicom-node {first} {others[0]}"
            command = command.commands[others[0]]
        options = {name for each in command.params for name in each.opts} | {"--help"}
        assert set(re.findall(r"--[a-z][a-z-]+", rest)) <= options, f"dicom-node {words}{rest}"


def test_files_named_in_the_runbook_exist() -> None:
    """Paths under deploy/ and config/."""
    text = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"\b((?:deploy|config)/[\w./-]+[\w])", text)):
        assert (ROOT / name).exists(), name
    for name in set(re.findall(r"`((?:prometheus|grafana|kubernetes)/[\w./-]+)`", text)):
        assert (DEPLOY / name).exists(), name


def test_make_targets_named_in_the_runbook_exist() -> None:
    """`make TARGET`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", (DEPLOY / "runbook.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_image_runs_without_rights() -> None:
    """Two stages; what it copies exists; the last stage runs as a user, knows its health, and starts a verb."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    parsed = DockerfileParser(fileobj=BytesIO(text.encode())).structure
    steps = [(each["instruction"], each["value"]) for each in parsed if each["instruction"] != "COMMENT"]
    kinds = [kind for kind, _ in steps]
    assert kinds.count("FROM") == 2
    last = steps[len(kinds) - 1 - kinds[::-1].index("FROM") :]
    assert ("USER", f"{RUN_AS}:{RUN_AS}") in last
    assert [kind for kind, _ in last].index("USER") > [kind for kind, _ in last].index("COPY")
    assert "HEALTHCHECK" in [kind for kind, _ in last]
    (arguments,) = [json.loads(value) for kind, value in last if kind == "CMD"]
    assert arguments[0] in main.commands
    copied = [value.split()[:-1] for kind, value in steps if kind == "COPY" and "--from" not in value]
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in (each for group in copied for each in group):
        assert (ROOT / name).exists(), name
        assert f"!{name}" in kept, f".dockerignore leaves out {name}"


def test_commands_of_the_image_are_shell() -> None:
    """Every RUN parses, and every extra that it installs exists."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    parsed = DockerfileParser(fileobj=BytesIO(text.encode())).structure
    commands = [each["value"] for each in parsed if each["instruction"] == "RUN"]
    assert len(commands) >= 3
    for command in commands:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    extras = re.findall(r"'\.\[([\w,]+)\]'", "\n".join(commands))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert extras
    assert all(re.search(rf"^{name} = \[", project, re.MULTILINE) for each in extras for name in each.split(","))


def test_probes_ask_for_paths_that_are_served() -> None:
    """Docker, compose, Kubernetes and Prometheus ask for what the status page routes."""
    paths = {str(rule) for rule in RULES.iter_rules()}
    texts = [DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", DEPLOY / "kubernetes" / "node.yaml"]
    asked = {path for each in texts for path in re.findall(r"(/health[\w/]*)", each.read_text(encoding="utf-8"))}
    asked.add(read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]["metrics_path"])
    assert len(asked) >= 3
    assert asked <= paths, asked - paths


def test_services_of_the_compose_file_are_confined() -> None:
    """No new privileges, no capabilities that are not named, a memory limit, secrets and networks that exist."""
    found = compose()
    for name, service in found["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert set(service["networks"]) <= set(found["networks"]), name
        assert set(service.get("secrets", ())) <= set(found["secrets"]), name
        volumes = {each.partition(":")[0] for each in service.get("volumes", ()) if not each.startswith(".")}
        assert volumes <= set(found["volumes"]), name
        assert not service.get("privileged"), name
    node = found["services"]["node"]
    assert node["read_only"] is True
    assert node["command"][0] in main.commands
    assert {port for port in node["ports"] if not port.startswith("127.")} == {"11112:11112"}
    assert found["networks"]["database"]["internal"] is True
    environment = " ".join(str(service.get("environment", "")) for service in found["services"].values())
    assert not re.search(r"PASSWORD['\"]?: ['\"]?\w", environment)


def test_the_compose_file_and_its_configuration_agree() -> None:
    """Ports, folders, secrets and host names are the same on both sides."""
    found, settings = compose(), node_settings.load(NODE_CONFIGS[0])
    node = found["services"]["node"]
    assert f"{settings.node.port}:{settings.node.port}" in node["ports"]
    assert any(each.endswith(f":{settings.node.data_dir}") for each in node["volumes"])
    files = {str(user.token_file) for user in settings.web.users}
    assert files == {f"/run/secrets/{name}" for name in node["secrets"] if name.endswith("_token")}
    assert settings.pacs[0].dimse is not None
    assert settings.pacs[0].dimse.host in found["services"]
    assert "@postgres/" in str(settings.database.url)
    target = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0]
    assert target == f"node:{settings.web.port}"
    assert "node" in settings.web.names


@pytest.mark.parametrize("kind", ["Namespace", "StatefulSet", "Service", "NetworkPolicy"])
def test_kubernetes_objects_are_valid(kind: str) -> None:
    """Against the API's own schema, strictly: an unknown field is an error."""
    found = objects(kind)
    assert found
    for each in found:
        kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True)


def test_the_pod_meets_the_restricted_standard() -> None:
    """Pod Security Standards, restricted: not root, no escalation, no capabilities, default seccomp; read-only root."""
    (stateful_set,) = objects("StatefulSet")
    assert stateful_set["spec"]["replicas"] == 1
    pod = stateful_set["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == RUN_AS
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    confined = container["securityContext"]
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    assert container["args"][0] in main.commands
    (namespace,) = objects("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_pod_and_its_configuration_agree() -> None:
    """Ports and mounts; the kustomization names files that exist."""
    settings = node_settings.load(NODE_CONFIGS[1])
    (stateful_set,) = objects("StatefulSet")
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    assert [each["containerPort"] for each in container["ports"]] == [settings.node.port, settings.web.port]
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    assert any(str(settings.node.data_dir).startswith(f"{each}/") for each in mounts)
    assert all(any(str(user.token_file).startswith(each) for each in mounts) for user in settings.web.users)
    kustomization = read(DEPLOY / "kubernetes" / "kustomization.yaml")
    names = [*kustomization["resources"], *kustomization["configMapGenerator"][0]["files"]]
    assert all((DEPLOY / "kubernetes" / name).is_file() for name in names)


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """`systemd-analyze verify`, with a program that exists in the place of ours."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "dicom-node.service"
    text = UNIT.read_text(encoding="utf-8").replace("/opt/dicom-node/bin/dicom-node", sys.executable)
    text = text.replace("User=dicom-node", "User=root").replace("Group=dicom-node", "Group=root")
    unit.write_text(re.sub(r"^Documentation=.*$", "", text, flags=re.MULTILINE), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "dicom-node.service" in line]
    assert not complaints


def test_the_unit_is_confined() -> None:
    """Systemd's own figure of what a broken-in service could reach: "OK", where none of it set is "UNSAFE"."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={WORST_EXPOSURE}",
        "--no-pager",
        str(UNIT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-800:] + done.stderr


def test_the_unit_sets_what_it_promises() -> None:
    """Strict system, no new privileges, a memory limit, time to drain, and a start of a verb that exists."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "KillMode=mixed"):
        assert line in lines
    assert any(re.fullmatch(r"MemoryMax=\d+G", line) for line in lines)
    seconds = next(int(line.partition("=")[2]) for line in lines if line.startswith("TimeoutStopSec="))
    assert seconds > 60  # how long the supervisor waits for its processes
