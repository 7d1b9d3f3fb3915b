"""The node with one promise broken, to prove that a test of the promise sees it; and with a predictor of digests."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType

VARIABLE: Final = "DICOM_NODE_MUTANT"
NO_FILE_SYNC: Final = "no-file-sync"
NO_FOLDER_SYNC: Final = "no-folder-sync"
NO_LEDGER_SYNC: Final = "no-ledger-sync"
RANDOM_UIDS: Final = "random-uids"
MUTANTS: Final = (NO_FILE_SYNC, NO_FOLDER_SYNC, NO_LEDGER_SYNC, RANDOM_UIDS)


def install(mutant: str) -> None:
    """Break one promise in this process.

    Raises:
        ValueError: if there is no such mutant.
    """
    if mutant in {NO_FILE_SYNC, NO_FOLDER_SYNC}:
        _forget_to_sync(folders=mutant == NO_FOLDER_SYNC)
    elif mutant == NO_LEDGER_SYNC:
        _after_import("dicom_node.ledger.database", _sync_nothing)
    elif mutant == RANDOM_UIDS:
        _after_import("sr_templates.uids", _derive_nothing)
    else:
        msg = f"{VARIABLE}: expected one of {', '.join(MUTANTS)}, found {mutant}"
        raise ValueError(msg)


def answer_from_digests(module: ModuleType) -> None:
    """Replace the model by a function of the inputs' digests, so that a run costs no more than reading and encoding."""

    class DigestPredictor:
        def __init__(self, bundle: Any, **_options: Any) -> None:
            from inference.results import ModelCard  # noqa: PLC0415 - in a worker only
            from tests.factories.bench import ContentPredictor  # noqa: PLC0415 - in a worker only

            card = ModelCard(
                name="digests",
                version="1",
                digest=bundle.digest,
                training_data="none",
                intended_use="test",
                synthetic=True,
            )
            self._predictor = ContentPredictor(card)

        def predict(self, *arguments: Any, **options: Any) -> Any:
            return self._predictor.predict(*arguments, **options)

    module.Predictor = DigestPredictor  # type: ignore[attr-defined]


def _after_import(name: str, change: Any) -> None:
    import kill_points  # noqa: PLC0415 - beside this file, which is on the path of the node's processes alone

    sys.meta_path.insert(0, kill_points.AfterImport({name: change}))


def _forget_to_sync(*, folders: bool) -> None:
    sync = os.fsync

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if stat.S_ISDIR(os.fstat(number).st_mode) != folders:
            sync(number)

    os.fsync = os.fdatasync = fsync


def _sync_nothing(module: ModuleType) -> None:
    prepare = module._prepare_sqlite  # type: ignore[attr-defined]

    def prepare_and_forget(connection: Any, record: object) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA synchronous=OFF")

    module._prepare_sqlite = prepare_and_forget  # type: ignore[attr-defined]


def _derive_nothing(module: ModuleType) -> None:
    import uuid  # noqa: PLC0415 - only here

    module.derive_uid = lambda *_parts: f"2.25.{uuid.uuid4().int}"  # type: ignore[attr-defined]
