"""DCMTK's storescu as the sender: one process per association, the series shared out among them."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from dicom_node.benchmark.servers import SENDER_AE, STORESCU, environment
from dicom_node.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dicom_node.benchmark.servers import Running

LONGEST_S = 3600.0


def storescu(
    where: Running, paths: Sequence[Path], *, associations: int = 1, nagle: bool = False, scan: bool = True
) -> float:
    """Send folders (or, without `scan`, files), each association its share; return the seconds until all are answered.

    The start of the processes is part of it, for every receiver alike.

    Raises:
        UpstreamError: if a sender does not end well.
    """
    flags = ["+sd", "+r"] if scan else []
    command = [STORESCU, "-R", "-aet", SENDER_AE, "-aec", where.server.ae_title, *flags, "127.0.0.1", str(where.port)]
    shares = [[str(path) for path in paths[first::associations]] for first in range(associations)]
    began = time.monotonic()
    senders = [
        subprocess.Popen(  # noqa: S603 - DCMTK's, on files of ours
            [*command, *share], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(nagle=nagle)
        )
        for share in shares
        if share
    ]
    said = [each.communicate(timeout=LONGEST_S)[1] for each in senders]
    seconds = time.monotonic() - began
    for each, error in zip(senders, said, strict=True):
        if each.returncode:
            last = error.decode(errors="replace").strip().splitlines()[-1:] or ["nothing said"]
            msg = f"storescu to {where.server.name}: expected exit code 0, found {each.returncode}: {last[0]}"
            raise UpstreamError(msg)
    return seconds
