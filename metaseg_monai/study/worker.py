"""One run of a study in a process of its own: ``python -m metaseg_monai.study.worker FOLDER``."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks; there the study's own care must do
    fcntl = None  # type: ignore[assignment]

PARENT = "METASEG_STUDY_PROCESS"  # the process whose end ends this one
LOCK = "run.lock"


def main(folder: Path) -> int:
    """Train, evaluate and record; return 0 where the run is finished, 1 where it failed.

    An interrupted training goes on from its checkpoint.
    """
    _end_with_parent()
    with _only_one(folder / LOCK):
        return _run(folder)


def _run(folder: Path) -> int:
    from metaseg_monai.errors import MetasegError
    from metaseg_monai.study.matrix import table_file
    from metaseg_monai.study.record import now, read_record, table_sha256, write_record

    record = read_record(folder)
    if record is None:
        sys.stderr.write(f"{folder} holds no run.json; start a study instead.\n")
        return 1
    started, before = time.monotonic(), record["seconds"]
    record |= {"state": "running", "started": now(), "versions": _versions()}
    write_record(folder, record)
    try:
        _train_and_evaluate(folder, record)
        digest = table_sha256(table_file(record["settings"], Path(record["bundle"])))
        record |= {"state": "finished", "table_sha256": digest}
    except MetasegError as error:
        record |= {"state": "failed", "error": str(error)}
        sys.stderr.write(f"error: {error}\n")
    except Exception as error:
        record |= {"state": "failed", "error": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
    record |= {"ended": now(), "seconds": before + time.monotonic() - started}
    write_record(folder, record)
    return 0 if record["state"] == "finished" else 1


def _train_and_evaluate(folder: Path, record: dict[str, Any]) -> None:
    from metaseg_monai.bundle import load_config, run_bundle
    from metaseg_monai.explain import draw
    from metaseg_monai.study.matrix import CONFIGS

    bundle = Path(record["bundle"])
    settings = {**record["settings"], "output_dir": str(folder.resolve())}
    files = [bundle / "configs" / name for name in CONFIGS]
    only_testing = load_config(files).keys() - load_config(files[:1]).keys()
    train = {key: value for key, value in settings.items() if key not in only_testing}
    run_bundle(bundle, ["train.json"], {**train, "resume": True})
    run_bundle(bundle, CONFIGS, settings)
    if record["explain"]:
        run_bundle(bundle, [*CONFIGS, "explain.json"], settings)
        draw(folder)


def _end_with_parent() -> None:
    """End when the study's process is gone: an orphan would go on beside its own successor."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Wait until no other process works on the same run."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("metaseg-monai", "torch", "monai")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
