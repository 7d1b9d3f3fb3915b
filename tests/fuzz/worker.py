"""Runs cases of one target, one after the other, and prints a line for each; started by `campaign`, lost if need be.

python -m tests.fuzz.worker TARGET SEED FIRST COUNT
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from tests.fuzz.served import peak_mb
from tests.fuzz.targets import chance_of, open_target, quiet

MEMORY_BYTES: Final = 4 << 30  # of address space: what asks for more gets a MemoryError, as in the reader


def main() -> None:
    """Run the cases that the arguments name."""
    name, seed, first, count = sys.argv[1], *map(int, sys.argv[2:5])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    output, sys.stdout = sys.stdout, sys.stderr
    target, folder = open_target(name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    def tell(**line: object) -> None:
        output.write(json.dumps(line) + "\n")
        output.flush()

    tell(ready=True)
    with quiet():
        for number in range(first, first + count):
            case = target.make(chance_of(seed, name, number))
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak, proc(5)
            began = time.monotonic()
            try:
                outcome, defect = target.run(case), ""
            except Exception as error:  # noqa: BLE001 - whatever a target throws is what is looked for
                outcome, defect = "defect", f"{type(error).__name__}: {error}\n{traceback.format_exc()[-2500:]}"
            tell(
                number=number, outcome=outcome, defect=defect, took_s=round(time.monotonic() - began, 4),
                peak_mb=round(peak_mb(), 1),
            )  # fmt: skip
        try:
            target.close()
        except Exception as error:  # noqa: BLE001 - as above
            tell(closing=f"{type(error).__name__}: {error}")
        shutil.rmtree(folder, ignore_errors=True)
    tell(done=True)


if __name__ == "__main__":
    main()
