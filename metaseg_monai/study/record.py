"""What is written down: the study and every protocol that was fixed; of a run, what it ran on."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import PREVIOUS, file_sha256, numbered, replacing
from metaseg_monai.study.design import Study
from metaseg_monai.study.matrix import Run

STUDY = "study.json"
PLAN = "plan.json"
HISTORY = "protocol.json"
RECORD = "run.json"
LOG = "log.csv"
RESULTS = ("counts.csv", LOG, "model.pt")
NEEDED = ("state", "key", "table", "threads", "seconds")


def fix(study: Study, runs: Sequence[Run], output: Path) -> None:
    """Write the study down before it is run; a changed protocol is added, never replaced.

    A report needs these files and the runs' folders, but not the bundle.

    Args:
        study: what is to be run.
        runs: its runs.
        output: the study's folder.
    """
    history = read_history(output)
    said = {
        "question": study.question,
        "conditions": {name: dict(own) for name, own in study.conditions.items()},
        "settings": {**study.settings, **study.data_settings},
        "seeds": ", ".join(map(str, study.seeds)),
        "data_seeds": ", ".join(map(str, study.data_seeds)),
        **study.protocol.model_dump(),
    }
    if not history or history[-1]["protocol"] != said:
        # also those of other configurations, wherever they were moved: they have been seen
        finished_runs = len(list(output.glob("**/counts.csv")))
        entry = {"at": now(), "finished_runs": finished_runs, "protocol": said}
        _write(output / HISTORY, [*history, entry])
    _write(output / PLAN, [asdict(run) for run in runs])
    _write(output / STUDY, study.model_dump())


def read_history(output: Path) -> list[dict[str, Any]]:
    """Return every protocol that was fixed: ``at``, ``finished_runs``, ``protocol``; oldest first.

    Raises:
        DataError: the file is damaged.
    """
    file = output / HISTORY
    if not file.is_file():
        return []
    try:
        history: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: damaged ({error}); restore it from a copy.") from error
    return history


def read_study(output: Path) -> Study:
    """Return the study that a folder holds.

    Raises:
        ConfigError: there is none.
    """
    if not (output / STUDY).is_file():
        raise ConfigError(
            f"{output} holds no {STUDY}; start one with `python -m metaseg_monai study`."
        )
    return Study.load(output / STUDY)


def read_plan(output: Path) -> list[Run]:
    """Return the runs that the study was last started with.

    Raises:
        ConfigError: there are none, or the file is damaged.
    """
    try:
        return [Run(**run) for run in json.loads((output / PLAN).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{output / PLAN}: {error}; start the study again.") from error


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
        missing = [name for name in NEEDED if name not in record]
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); move its folder away.") from error
    if missing:
        raise DataError(f"{file}: lacks {', '.join(missing)}; move its folder away.")
    return record


def read_log(folder: Path) -> list[dict[str, str]]:
    """Return the epochs that the log of a run holds, as text by column."""
    if not (folder / LOG).is_file():
        return []
    with (folder / LOG).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace the record in one step."""
    _write(folder / RECORD, record)


def is_finished(folder: Path, run: Run) -> bool:
    """Tell whether the folder holds the results of just this run on the table as it is now."""
    record = read_record(folder)
    return (
        record is not None
        and record["state"] == "finished"
        and record["key"] == run.key
        and all((folder / name).is_file() for name in RESULTS)
        and _same_table(record, run)
    )


def restore(output: Path, run: Run) -> None:
    """Take back the finished results of just this run from where they were moved aside."""
    if is_finished(output / run.folder, run):
        return
    kept = output / PREVIOUS / run.folder
    for folder in sorted(kept.parent.glob(f"{kept.name}-{run.key[:8]}-*")):
        if is_finished(folder, run):
            _move_aside(output, run.folder)
            (output / run.folder).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, output / run.folder)
            return


def plan(output: Path, run: Run, bundle: Path, threads: int) -> tuple[Path, int]:
    """Make the run's folder ready; what another configuration left there is moved aside, whole.

    An interrupted run of the same configuration and table keeps its folder and its number of
    threads, so that it goes on to the same weights.

    Returns:
        The run's folder, and the number of threads it must be computed with.
    """
    folder = output / run.folder
    record = read_record(folder)
    goes_on = (
        record is not None
        and record["key"] == run.key
        and record["state"] != "finished"  # else its table has changed, or files are gone
        and _same_table(record, run)
    )
    if not goes_on:
        _move_aside(output, run.folder)
    elif record is not None:
        threads = record["threads"]
    going_on = record if record is not None and goes_on else {}
    new = {
        **asdict(run),
        "bundle": str(bundle),
        "table_sha256": going_on.get("table_sha256"),
        "threads": threads,
        "seconds": going_on.get("seconds", 0.0),
        "state": "planned",
    }
    write_record(folder, new)
    return folder, threads


def sha256(file: Path) -> str | None:
    """Return the digest of a file, or None where it does not exist."""
    return file_sha256(file) if file.is_file() else None


def now() -> str:
    """Return the time as it is written into records: UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _same_table(record: Mapping[str, Any], run: Run) -> bool:
    """A table that is no longer there, or was not there yet, cannot have changed."""
    found, known = sha256(Path(run.table)), record["table_sha256"]
    return found is None or known is None or found == known


def _move_aside(output: Path, folder: str) -> None:
    """Move a run's folder to where nothing reads it; an empty or absent one is left."""
    if not (output / folder).exists() or not any((output / folder).iterdir()):
        return
    record = read_record(output / folder)
    key = "none" if record is None else record["key"][:8]
    target = numbered(output / PREVIOUS / f"{folder}-{key}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(output / folder, target)


def _write(path: Path, content: Any) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
