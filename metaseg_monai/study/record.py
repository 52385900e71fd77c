"""What is known of a run, in its folder's run.json: settings, state, and the data it ran on."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from metaseg_monai.errors import DataError
from metaseg_monai.files import replacing
from metaseg_monai.study.matrix import Run, table_file

RECORD = "run.json"
RESULTS = ("counts.csv", "log.csv", "model.pt")
PREVIOUS = "previous"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a run, or None where there is none.

    Raises:
        DataError: the file is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: damaged ({error}); remove {folder} to run it again.") from error
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace the record in one step."""
    with replacing(folder / RECORD) as part:
        part.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")


def is_finished(folder: Path, run: Run) -> bool:
    """Tell whether the folder holds the results of just this run on the data as they are now."""
    record = read_record(folder)
    return (
        record is not None
        and record["state"] == "finished"
        and record["key"] == run.key
        and all((folder / name).is_file() for name in RESULTS)
        and _same_table(record, table_file(run.settings, Path(record["bundle"])))
    )


def plan(output: Path, run: Run, bundle: Path, threads: int) -> tuple[Path, int]:
    """Make the run's folder ready; what another configuration left there is moved aside, whole.

    An interrupted run of the same configuration keeps its folder and its number of threads, so
    that it goes on to the same weights.

    Returns:
        The run's folder, and the number of threads it must be computed with.
    """
    folder = output / run.folder
    record = read_record(folder)
    same = record is not None and record["key"] == run.key
    if record is not None and same and record["state"] == "finished":  # the table has changed
        same = False
    if folder.exists() and not same and any(folder.iterdir()):
        _move_aside(output, run.folder, "none" if record is None else record["key"])
    if record is not None and same:
        threads = record["threads"]
    write_record(
        folder,
        {
            "condition": run.condition,
            "seed": run.seed,
            "data_seed": run.data_seed,
            "domain": run.domain,
            "bundle": str(bundle),
            "settings": run.settings,
            "key": run.key,
            "threads": threads,
            "explain": run.explain,
            "seconds": record["seconds"] if record is not None and same else 0.0,
            "state": "planned",
        },
    )
    return folder, threads


def table_sha256(file: Path) -> str | None:
    """Return the digest of the table, or None where it does not exist."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def now() -> str:
    """Return the time as it is written into records: UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _same_table(record: Mapping[str, Any], file: Path) -> bool:
    """A table that is no longer there cannot have changed what was finished."""
    found = table_sha256(file)
    return found is None or found == record["table_sha256"]


def _move_aside(output: Path, folder: str, key: str) -> None:
    number = 1
    while (target := output / PREVIOUS / f"{folder}-{key[:8]}-{number}").exists():
        number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(output / folder, target)
