"""Files: ours alone, under names that nobody else chose, through no link, and nothing in them is ever executed."""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread

from dicom_node import app
from dicom_node.cli import main
from dicom_node.errors import ConfigError, PeerError
from dicom_node.ledger import arrivals
from dicom_node.ledger.database import Database
from dicom_node.observe.doctor import _privacy
from dicom_node.receive.facts import UnreadableInstance, read_facts
from dicom_node.receive.files import InstanceFiles, write_durably
from dicom_node.receive.intake import Intake, Origin
from dicom_node.receive.reader import Reader, Unread
from dicom_node.receive.uids import is_uid
from dicom_node.resources import task_file
from dicom_node.settings import Settings, load
from dicom_node.timeline.model import InstanceFacts
from dicom_node.work.folders import Folders
from dicom_node.work.tasks import load_tasks
from inference.bundle_files import METADATA, WEIGHTS, bundle_digest, shipped
from tests.factories.ledger import NOW
from tests.factories.mr import SENTINEL_ID, SENTINEL_NAME, classic_series, write

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for name in ("dicom_node", "inference", "sr_templates") for path in (ROOT / name).rglob("*.py"))
HOSTILE = (
    "../../../../etc/passwd", "/etc/passwd", "1.2/../3", "1.2.3/", "1.2\\3", "1.2.3\0", "1.2.3\n", " 1.2.3", "1..2",
    "1.02.3", "..", ".", "", "1.2.a", "1.2.٣", "1." + "2" * 63, "$(id)", "%2e%2e", "1.2.3;rm",
)  # fmt: skip


# names and permissions ------------------------------------------------------------------------------------------------


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A process whose files everybody may read, were it for the umask alone."""
    before = os.umask(0)
    yield
    os.umask(before)


def config_in(folder: Path, **sections: Any) -> Path:
    """Write the configuration of a node whose data lie beside it."""
    config = {
        "node": {"ae_title": "TEMPORALNODE", "data_dir": "data"},
        "receive": {
            "peers": [{"ae_title": "SCANNER1", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}],
            "min_free_disk_gb": 0,
        },
        "tasks": ["glioma-recurrence"],
    }
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(config | sections), encoding="utf-8")
    return path


def a_series(folder: Path, **attributes: Any) -> list[Path]:
    """Write a small series."""
    return write(classic_series(np.zeros((3, 8, 8), np.uint16), np.eye(4), **attributes), folder)


def modes(folder: Path) -> dict[str, int]:
    """Return what others than the owner may do with everything under a folder, where it is anything."""
    found = {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}
    return {name: mode for name, mode in found.items() if mode & 0o077}


@pytest.mark.usefixtures("open_umask")
def test_whatever_the_program_writes_its_user_alone_may_read(tmp_path: Path) -> None:
    """Folders 0700 and files 0600, whatever umask it was started with: database, images, key, locks."""
    a_series(tmp_path / "disk")
    config = config_in(tmp_path)
    done = CliRunner().invoke(main, ["ingest", str(tmp_path / "disk"), "--config", str(config)])
    assert done.output.endswith("3 files taken, 0 refused\n"), done.output
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert len(list((tmp_path / "data").rglob("*.dcm"))) == 3
    assert (tmp_path / "data" / "ledger.sqlite").is_file()
    assert modes(tmp_path / "data") == {}


@pytest.mark.usefixtures("open_umask")
def test_what_was_left_open_is_closed_at_the_start(tmp_path: Path) -> None:
    """By an older version, a copy, a careless hand; the folder itself may be more than ours, and `doctor` tells."""
    settings = load(config_in(tmp_path))
    (tmp_path / "data").mkdir(mode=0o755)
    for name in ("outbox", "results", "audit"):
        (tmp_path / "data" / name).mkdir(mode=0o777)
    (tmp_path / "data" / "pseudonym.key").touch(mode=0o644)
    (tmp_path / "data" / "engine.sqlite").touch(mode=0o666)
    somebody = tmp_path / "elsewhere"
    somebody.mkdir(mode=0o755)
    (tmp_path / "data" / "cache").symlink_to(somebody)
    app.prepare(settings)
    left = {name: mode for name, mode in modes(tmp_path / "data").items() if name != "cache" and "/" not in name}
    assert set(left) <= {"ledger.sqlite"}  # made by this process, which is no `dicom-node` and has another umask
    assert stat.S_IMODE(somebody.stat().st_mode) == 0o755
    assert not _privacy(settings).good
    (tmp_path / "data").chmod(0o700)
    assert _privacy(settings).good


def test_no_received_text_becomes_part_of_a_name(tmp_path: Path) -> None:
    """Names in the data folder are random or ours, whoever's image it is and whatever its UIDs are."""
    words = (SENTINEL_NAME, SENTINEL_ID, "../escape", "SECRET DESCRIPTION")
    studies = a_series(tmp_path / "disk", SeriesDescription="SECRET DESCRIPTION", AccessionNumber="../escape")
    uids = {str(dcmread(path).get(each)) for path in studies for each in ("SOPInstanceUID", "StudyInstanceUID")}
    config = config_in(tmp_path)
    assert CliRunner().invoke(main, ["ingest", str(tmp_path / "disk"), "--config", str(config)]).exit_code == 0
    names = "\n".join(str(path) for path in (tmp_path / "data").rglob("*"))
    assert not [word for word in (*words, *uids) if word in names]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_uid_is_never_taken_for_one(text: str) -> None:
    """PS3.5 9.1, to the letter."""
    assert not is_uid(text)


@pytest.mark.filterwarnings("ignore")  # of pydicom, as in the process that reads
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_data_set_that_names_no_uid_gives_no_facts(keyword: str, tmp_path: Path) -> None:
    """Whatever stands there instead."""
    (path, *_) = a_series(tmp_path / "disk")
    for text in filter(str.isascii, HOSTILE):
        ds = dcmread(path)
        ds[keyword]._value = text
        ds.save_as(tmp_path / "hostile.dcm")
        if is_uid(str(dcmread(tmp_path / "hostile.dcm").get(keyword) or "").strip(" \0")):
            continue  # it was only padded
        with pytest.raises(UnreadableInstance):
            read_facts(tmp_path / "hostile.dcm", default_issuer="HOSPITAL")


def test_a_file_meta_that_names_no_uid_is_refused_at_the_door(tmp_path: Path) -> None:
    """Before anything is written."""
    (path, *_) = a_series(tmp_path / "disk")
    content = path.read_bytes()
    uid = str(dcmread(path).file_meta.MediaStorageSOPInstanceUID).encode()
    hostile = content.replace(uid, b"../../../../etc/passwd".ljust(len(uid), b"x"), 1)
    database, files = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), InstanceFiles(tmp_path / "instances")
    database.migrate()
    files.prepare()
    intake = Intake(database, files, Origin(name="X", default_issuer="HOSPITAL"), lambda: NOW)
    with pytest.raises(PeerError):
        intake.take(hostile)
    assert list((tmp_path / "instances").rglob("*.dcm")) == []
    assert intake.take(content) == uid.decode()
    with database.read() as ledger:
        (name,) = arrivals.known_paths(ledger)
    assert (tmp_path / "instances" / name).is_file()
    database.close()


# links ----------------------------------------------------------------------------------------------------------------


def test_a_link_among_files_to_take_in_is_not_followed(tmp_path: Path) -> None:
    """Neither to a file nor to a folder; the admin may name one."""
    (outside, *_) = a_series(tmp_path / "outside")
    disk = tmp_path / "disk"
    a_series(disk, PatientID="OTHER")
    (disk / "file.dcm").symlink_to(outside)
    (disk / "folder").symlink_to(outside.parent)
    config = config_in(tmp_path)
    done = CliRunner().invoke(main, ["ingest", str(disk), "--config", str(config)])
    assert "3 files taken, 1 refused" in done.output
    assert f"refused {disk / 'file.dcm'}: a symbolic link" in done.output
    done = CliRunner().invoke(main, ["ingest", str(disk / "file.dcm"), "--config", str(config)])
    assert "1 files taken, 0 refused" in done.output


def test_a_link_where_we_write_is_refused(tmp_path: Path) -> None:
    """What it leads to stays as it was, under the temporary name as under the final one."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".report.dcm.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        write_durably(tmp_path / "report.dcm", [b"theirs"])
    (tmp_path / "report.dcm").symlink_to(victim)
    write_durably(tmp_path / "report.dcm", [b"ours"])
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "report.dcm").is_symlink()


def test_a_link_in_place_of_an_image_is_not_read(tmp_path: Path) -> None:
    """Stored images are files; a link there was planted."""
    (path, *_) = a_series(tmp_path / "disk")
    planted = tmp_path / "planted.dcm"
    planted.symlink_to(path)
    with Reader() as reader:
        answer = reader.read(planted, "HOSPITAL")
        assert isinstance(answer, Unread)
        assert "symbolic-link" in answer.reason
        assert isinstance(reader.read(path, "HOSPITAL"), InstanceFacts)


def test_the_pseudonyms_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    """It is made under a random name and linked, so a link in its place is read or fails, never written."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "pseudonym.key").symlink_to(tmp_path / "missing")
    from dicom_node.observe.logs import load_key  # noqa: PLC0415 - beside its only use

    with pytest.raises(FileNotFoundError):
        load_key(tmp_path)
    assert not (tmp_path / "missing").exists()


# nothing is executed --------------------------------------------------------------------------------------------------


FORBIDDEN_IMPORTS = {"shelve", "marshal", "dill", "joblib", "cloudpickle", "pickle5", "jsonpickle"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "input", "os.system", "os.popen", "yaml.full_load", "yaml.unsafe_load",
    "yaml.load_all", "tempfile.mktemp", "torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "ssl._create_unverified_context",
}  # fmt: skip


def dangers(source: str) -> list[str]:
    """Return what in a source text could execute what it reads, or believe whom it should not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            found += [f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
            if isinstance(node, ast.ImportFrom) and node.module == "pickle":
                found.append("from pickle import")
        elif isinstance(node, ast.Call):
            found += _dangers_of(ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords})
    return found


def _dangers_of(name: str, keywords: dict[str | None, str]) -> list[str]:
    executes = name in FORBIDDEN_CALLS or name.endswith(("ConfigParser", "ConfigWorkflow"))  # MONAI's evaluate text
    found = [name] if executes else []
    if name in {"torch.load", "torch.serialization.load"} and keywords.get("weights_only") != "True":
        found.append("torch.load without weights_only=True")
    if name in {"np.load", "numpy.load"} and keywords.get("allow_pickle", "False") != "False":
        found.append("np.load with allow_pickle")
    if name == "yaml.load" and not keywords.get("Loader", "").endswith("UniqueKeyLoader"):
        found.append("yaml.load without a safe loader")
    found += [f"shell in {name}"] if keywords.get("shell", "False") != "False" else []
    found += [f"no certificate checked in {name}"] if keywords.get("verify") == "False" else []
    return found


def test_no_source_executes_what_it_reads() -> None:
    """No pickle, no eval, no torch.load but of weights, no shell, no TLS without certificates."""
    assert len(SOURCES) > 200
    found = {str(path.relative_to(ROOT)): dangers(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)", "import shelve", "from pickle import loads", "pickle.loads(x)", "torch.load(p)",
        "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "yaml.load(x)", "yaml.unsafe_load(x)",
        "yaml.load(x, Loader=yaml.Loader)", "subprocess.run(x, shell=True)", "requests.get(u, verify=False)",
        "monai.bundle.ConfigParser(x)", "os.system(x)",
    ],
)  # fmt: skip
def test_the_search_for_dangers_finds_them(source: str) -> None:
    """So that its silence means something."""
    assert dangers(source)


def test_our_yaml_loader_makes_nothing_but_values(tmp_path: Path) -> None:
    """A tag that would make a Python object is an error with file and line."""
    marker = tmp_path / "executed"
    config = tmp_path / "node.yaml"
    config.write_text(f"node: !!python/object/apply:os.system ['touch {marker}']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(config)
    assert not marker.exists()


# bundles --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """A task whose bundle, a copy of the shipped one, is pinned by its digest."""
    task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
    shutil.copytree(shipped(task["bundle"]["name"]), tmp_path / "bundle")
    task["bundle"] = {"path": "bundle", "digest": bundle_digest(tmp_path / "bundle")}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return tmp_path


def tampered(folder: Path, name: Path) -> Path:
    """Put into a bundle what would tell that somebody interpreted it: a pickle that runs, or JSON that lies."""
    marker = folder / "executed"
    path = folder / "bundle" / name
    if name == WEIGHTS:
        path.write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    else:
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content | {"synthetic_training_data": False}), encoding="utf-8")
    return marker


@pytest.mark.parametrize("name", [METADATA, WEIGHTS])
def test_a_bundle_that_is_not_the_pinned_one_is_refused_unread(pinned: Path, name: Path) -> None:
    """Its digest is looked at before its metadata is, and nothing of it runs."""
    (served,) = load_tasks([str(pinned / "task.yaml")]).values()
    assert served.bundle_folder == (pinned / "bundle").resolve()
    marker = tampered(pinned, name)
    (pinned / "bundle" / METADATA).write_text("{ not even JSON", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bundle\.digest: expected sha256:\w+, found sha256:\w+"):
        load_tasks([str(pinned / "task.yaml")])
    assert not marker.exists()


def test_a_node_looks_at_a_bundle_without_torch(pinned: Path) -> None:
    """What only a worker needs is not there to be attacked in the process that listens."""
    code = (
        "import sys\nfrom dicom_node.work.tasks import load_tasks\n"
        f"load_tasks([{str(pinned / 'task.yaml')!r}])\nprint('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_a_link_out_of_a_bundle_counts_as_what_it_leads_to(pinned: Path) -> None:
    """Whatever is read through it was digested."""
    secret = pinned / "secret"
    secret.write_text("x", encoding="utf-8")
    (pinned / "bundle" / "configs" / "more.json").symlink_to(secret)
    with pytest.raises(ConfigError, match="bundle"):
        load_tasks([str(pinned / "task.yaml")])


# secrets --------------------------------------------------------------------------------------------------------------


SECRET = "SWORDFISH-9172"


@pytest.mark.parametrize(
    "sections",
    [
        {"database": {"url": f"postgresql+psycopg://node:{SECRET}@127.0.0.1/node"}},
        {"database": {"url": f"postgresql+psycopg://node@127.0.0.1/node?password={SECRET}"}},
        {"database": {"url": f"mysql://node:{SECRET}@127.0.0.1/node"}},
        {"pacs": [{"name": "main", "orthanc": {"url": f"http://node:{SECRET}@127.0.0.1:8042"}}]},
    ],
)
def test_a_secret_in_the_configuration_is_refused_without_being_told(tmp_path: Path, sections: dict[str, Any]) -> None:
    """It belongs into the environment or a file; the message does not carry it on."""
    done = CliRunner().invoke(main, ["check", "--config", str(config_in(tmp_path, **sections))])
    assert done.exit_code == 2
    assert SECRET not in done.output


def test_secrets_of_the_environment_are_told_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by check, status or doctor, nor in the settings' own words."""
    monkeypatch.setenv("ARCHIVE_USER", "node")
    monkeypatch.setenv("ARCHIVE_PASSWORD", SECRET)
    orthanc = {"url": "http://127.0.0.1:9", "username_env": "ARCHIVE_USER", "password_env": "ARCHIVE_PASSWORD"}
    config = config_in(tmp_path, pacs=[{"name": "main", "orthanc": orthanc}])
    settings: Settings = load(config)
    app.prepare(settings)
    outputs = [
        CliRunner().invoke(main, [*verb, "--config", str(config)]).output
        for verb in (("check",), ("status",), ("status", "--json"))
    ]
    assert "good" in outputs[0]
    assert settings.pacs[0].orthanc is not None
    assert settings.pacs[0].orthanc.credentials() == ("node", SECRET)
    assert SECRET not in "\n".join([*outputs, repr(settings), settings.model_dump_json()])


def test_folders_are_made_for_us_alone(tmp_path: Path) -> None:
    """Each of them, so that what lies below needs no care of its own."""
    folders = Folders.under(tmp_path / "data")
    folders.prepare()
    InstanceFiles(folders.instances).prepare()
    assert modes(tmp_path / "data") == {}
