"""One process owns an output folder; all others are refused, and told who it is."""

import errno
import hashlib
import json
import logging
import os
import platform
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_monai.errors import DataError

logger = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some disks of clusters
LOOKING = "is looking whether it is free"  # owns a folder for a moment, and refuses nobody
PATIENCE_S = 30.0  # for those; many shards may begin at once, on a slow disk
OTHERWISE = "wait until it ends, or give another folder"


@dataclass
class _Owner:
    """A thread of this process, how often it owns the folder, and what ends that."""

    thread: int
    times: int
    lock: ExitStack


_owned: dict[Path, _Owner] = {}


@contextmanager
def owned(folder: str | Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Own an output folder until the block or the process ends, however it does.

    Whatever the folder is called (links, "..", another working directory), it has one owner. What
    the owning thread calls in turn is its own. The lock lies beside the folder, in the folder where
    it may not lie there, and is removed at the end. Where neither can be written, or the disk has
    no locks, nothing is locked; ranks of a distributed run but the first leave it to that one.

    Args:
        folder: of the results, which need not exist.
        doing: what the owner does, for the message to others, such as "is preparing this folder".
        wait: until the folder is free, instead of refusing.

    Raises:
        DataError: another process or thread owns it; names it.

    >>> import tempfile
    >>> output = Path(tempfile.mkdtemp()) / "run"
    >>> with owned(output, "trains here"), owned(output.parent / "other" / ".." / "run", "tests"):
    ...     [path.suffix for path in sorted(output.parent.iterdir())]
    ['.json', '.lock']
    >>> list(output.parent.iterdir())
    []
    """
    place, own = _resolved(folder), threading.get_ident()
    while (owner := _owned.get(place)) is not None and owner.thread != own:
        if not wait:
            raise DataError(f"{folder}: another thread of {_self()} is at work there; {OTHERWISE}")
        time.sleep(0.05)
    if owner is None:
        with ExitStack() as stack:
            if not _is_further_rank():
                _lock(place, folder, doing, wait, stack)
            owner = _owned[place] = _Owner(own, 0, stack.pop_all())
    owner.times += 1
    try:
        yield
    finally:  # in whatever order the blocks end
        owner.times -= 1
        if not owner.times:
            del _owned[place]
            owner.lock.close()


def _resolved(folder: str | Path) -> Path:
    try:
        return Path(folder).resolve()
    except (OSError, RuntimeError) as error:  # such as links in a circle
        raise DataError(f"{folder}: leads nowhere ({error}); give another folder") from error


def _is_further_rank() -> bool:
    """Whether torchrun started this process beside a first one, whose refusal ends both."""
    return os.environ.get("RANK", "0") != "0" and "MASTER_PORT" in os.environ


def _self() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _lock(place: Path, folder: str | Path, doing: str, wait: bool, stack: ExitStack) -> None:
    """Lock a folder until the stack is closed; see `owned`."""
    name = f".owner-{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:12]}.lock"
    for parent in (place.parent, place) if place.name else (place,):
        missing = [above for above in (parent, *parent.parents) if not above.exists()]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_empty, missing)
            if (lock := _acquired_after_looks(parent / name)) is None:
                waits = wait and (parent / name).exists()
                if waits:
                    told = _holder(parent / name)
                    logger.warning("%s: %s; this process waits until it ends", folder, told)
                lock = _acquired(parent / name, waits)
            if lock is None and not (parent / name).exists():
                continue  # where no file can be made, as in /proc, which looks as if it were held
            if lock is None:
                raise DataError(f"{folder}: {_holder(parent / name)}; {OTHERWISE}")
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return
            continue  # who may write neither place will say so, when it comes to that
        stack.callback(_release, lock, parent / name)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        record = {"process": _self(), "doing": doing, "since": since}
        with suppress(OSError):  # a full disk keeps nobody from owning a folder
            (parent / name).with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
        return


def _acquired_after_looks(path: Path) -> Any:
    """A lock, also where others just look whether it is free; None where one is at work."""
    end, unknown = time.monotonic() + PATIENCE_S, 0
    while (lock := _acquired(path, wait=False)) is None and time.monotonic() < end:
        known = _told(path)
        unknown = 0 if known else unknown + 1
        if (known and known.get("doing") != LOOKING) or unknown > 20 or not path.exists():
            return _acquired(path, wait=False)  # it may just have ended
        time.sleep(random.uniform(0, 0.1))  # so that not all look in step
    return lock


def _acquired(path: Path, wait: bool) -> Any:
    """A lock that is held on the file which has this name now; None where another holds it."""
    from filelock import FileLock, Timeout  # 60 ms, and few need a lock

    while True:
        lock = FileLock(path)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return None
        held = lock._context.lock_file_fd
        try:  # an owner that has just ended may have removed the file that was waited for
            if held is None or os.fstat(held).st_ino == path.stat().st_ino:
                return lock
        except FileNotFoundError:
            pass
        lock.release()


def _release(lock: Any, path: Path) -> None:
    with suppress(OSError):  # the folder may be gone, or replaced
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    lock.release()


def _holder(path: Path) -> str:
    for _ in range(20):  # it may just be writing who it is
        if known := _told(path):
            return f"{known['process']} {known['doing']} since {known['since']}"
        time.sleep(0.05)
    return "another process owns this folder"


def _told(path: Path) -> dict[str, str]:
    """What the owner of a lock tells of itself; empty where it does not, or not yet."""
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return {name: str(known[name]) for name in ("process", "doing", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that were made for a lock alone, the innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
