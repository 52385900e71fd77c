"""Where a folder is written before it is whole, and what a killed writer left of one there."""

import logging
import os
import platform
import re
import shutil
import time
import uuid
import zlib
from contextlib import suppress
from pathlib import Path

ABANDONED_S = 24 * 3600  # a writer of whom nothing else is known writes a file more often

logger = logging.getLogger(__name__)


def partial_beside(output: Path) -> Path:
    """Name a new folder beside `output` that tells its writer, and remove those of dead ones.

    A folder goes if its writer was a process of this machine that ended, or if nothing was written
    into it and its folders for a day; the log says so. Those of other outputs stay.

    Args:
        output: the folder to be, with a name (not ".").
    """
    for path in sorted(output.parent.glob(".partial-*")):
        if path.is_dir() and _is_left_behind(path, output.name):
            shutil.rmtree(path, ignore_errors=True)
            logger.warning("%s: was left half-written by a run that was killed; removed", path)
    writer = f"{_machine()}.{os.getpid()}"
    return output.with_name(f".partial-{writer}-{uuid.uuid4().hex}-{output.name}")


def _is_left_behind(path: Path, name: str) -> bool:
    form = r"\.partial-(?:(?P<machine>[0-9a-f]{8})\.(?P<process>\d+)-)?[0-9a-f]{32}-"
    found = re.fullmatch(form + re.escape(name), path.name)
    if found is None:
        return False
    if found["machine"] == _machine() and not _is_alive(int(found["process"])):
        return True
    try:
        written = [entry.stat().st_mtime for entry in [path, *path.iterdir()]]
    except OSError:  # its writer has just renamed it
        return False
    return time.time() - max(written) > ABANDONED_S


def _machine() -> str:
    """Tells apart what shares a disk, but not its numbers of processes: machines and containers."""
    told = [platform.node()]
    with suppress(OSError):  # Linux only; elsewhere the name must do
        told.append(str(Path("/proc/self/ns/pid").stat().st_ino))
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    return f"{zlib.crc32(' '.join(told).encode()):08x}"


def _is_alive(process: int) -> bool:
    """Whether the process runs; True where nobody can tell."""
    if os.name != "posix":  # elsewhere, signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        pass
    return True
