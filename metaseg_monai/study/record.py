"""What is written down: the study and every protocol that was fixed; of a run, what it ran on."""

import csv
import glob
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from metaseg_monai.bundle.overrides import as_data, read_back
from metaseg_monai.errors import CheckpointError, ConfigError, DataError
from metaseg_monai.evaluation.provenance import read_evaluation, why_changed
from metaseg_monai.files import PREVIOUS, absolute, file_sha256, numbered, read_json, write_json
from metaseg_monai.study.design import Study
from metaseg_monai.study.matrix import Run
from metaseg_monai.training.weights import read_weights

STUDY = "study.json"
PLAN = "plan.json"
HISTORY = "protocol.json"
RECORD = "run.json"
LOG = "log.csv"
WEIGHTS = "model.pt"
PLACES = {"dataset_dir", "schema_file", "columns_file", "predicted_metadata"}
TRAINED = (LOG, WEIGHTS)
KEPT = ("table_sha256", "threads", "seconds", "weights_sha256", "evaluated", "explained")
NEEDED = ("state", "key", "table", "table_sha256", "threads", "seconds")


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
        **({"elsewhere": ", ".join(study.elsewhere)} if study.elsewhere else {}),
        "settings": {**study.settings, **study.data_settings},
        **({"configuration": ", ".join(study.configuration)} if study.configuration else {}),
        "seeds": ", ".join(map(str, study.seeds)),
        **({} if study.folds is None else {"folds": ", ".join(map(str, study.folds))}),
        "data_seeds": ", ".join(map(str, study.data_seeds)),
        **study.protocol.model_dump(exclude={"pilot"} if study.protocol.pilot is None else None),
    }
    if not history or history[-1]["protocol"] != said:
        # also those of other configurations, wherever they were moved: they have been seen
        finished_runs = len(list(output.glob("**/counts.csv")))
        entry = {"at": now(), "finished_runs": finished_runs, "protocol": said}
        write_json(output / HISTORY, [*history, entry], default=str)
    write_json(output / PLAN, [asdict(run) for run in runs], default=str)
    write_json(output / STUDY, study.model_dump(), default=str)


def read_history(output: Path) -> list[dict[str, Any]]:
    """Return every protocol that was fixed: ``at``, ``finished_runs``, ``protocol``; oldest first.

    Raises:
        DataError: the file is damaged.
    """
    file = output / HISTORY
    if not file.is_file():
        return []
    try:
        history: list[dict[str, Any]] = read_json(file)
        for entry in history:
            _ = entry["at"], int(entry["finished_runs"]), dict(entry["protocol"])
    except (ValueError, KeyError, TypeError) as error:
        told = f"lacks {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{file}: damaged ({told}); restore it from a copy.") from error
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
        return [Run(**run) for run in read_json(output / PLAN)]
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
        record: dict[str, Any] = read_json(file)
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
    write_json(folder / RECORD, record, default=str)


def is_finished(folder: Path, run: Run) -> bool:
    """Tell whether the folder holds the results of just this run on the table as it is now."""
    record = read_record(folder)
    return (
        record is not None
        and record["state"] == "finished"
        and is_trained(folder, run)
        and not missing_modes(folder, asdict(run))
        and not (run.explain and "explained" not in record)  # stopped in between
    )


def is_trained(folder: Path, run: Run) -> bool:
    """Tell whether the folder holds the weights of just this run on the table as it is now."""
    record = read_record(folder)
    return (
        record is not None
        and record["key"] == run.key
        and all((folder / name).is_file() for name in TRAINED)
        and _same_table(record, run)
        and record.get("weights_sha256") == weights_in(folder)
    )


def weights_in(folder: Path) -> str | None:
    """The SHA-256 of a run's weights; None where they are missing or damaged."""
    try:
        digest: str = read_weights(folder / WEIGHTS)[1]["weights_sha256"]
    except CheckpointError:
        return None
    return digest


def missing_modes(folder: Path, run: Mapping[str, Any]) -> list[str]:
    """The test modes of a run that its weights are still to be tested in.

    Args:
        folder: of the run.
        run: its `tested` and `modes`.
    """
    record, results = read_record(folder) or {}, read_evaluation(folder)
    if record.get("evaluated") != run["tested"] or why_changed(folder, results):
        return list(run["modes"])
    return [mode for mode in run["modes"] if mode not in results["asked"]]


def restore(output: Path, run: Run) -> None:
    """Take back the weights and results of just this run from where they were moved aside."""
    if is_trained(output / run.folder, run):
        return
    kept = output / PREVIOUS / run.folder
    for folder in sorted(kept.parent.glob(f"{glob.escape(kept.name)}-{run.key[:8]}-*")):
        if is_trained(folder, run):
            _move_aside(output, run.folder)
            (output / run.folder).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, output / run.folder)
            return


def plan(output: Path, run: Run, bundle: Path, threads: int) -> tuple[Path, int]:
    """Make the run's folder ready; what another configuration left there is moved aside, whole.

    An interrupted run of the same configuration and table keeps its folder and its number of
    threads, so that it goes on to the same weights; so does one whose weights are to be tested
    anew, or in further modes.

    Returns:
        The run's folder, and the number of threads it must be computed with.
    """
    folder = output / run.folder
    record = read_record(folder)
    begun = (
        record is not None
        and record["key"] == run.key
        and record["state"] != "finished"
        and not record.get("weights_sha256")
        and _same_table(record, run)
    )
    going_on: dict[str, Any] = {}
    if record is not None and (begun or is_trained(folder, run)):
        going_on = record
    else:  # of another configuration or table, or its weights are gone or others
        _move_aside(output, run.folder)
    kept = {name: going_on[name] for name in KEPT if name in going_on}
    new = {
        **asdict(run),
        "settings": _lasting(run.settings),
        "bundle": str(bundle),
        "pretrained": None if run.pretrained is None else str(output / run.pretrained / WEIGHTS),
        "table_sha256": None,
        "threads": threads,
        "seconds": 0.0,
        **kept,
        "state": "planned",
    }
    write_record(folder, new)
    return folder, new["threads"]


def sha256(file: Path) -> str | None:
    """Return the digest of a file, or None where it does not exist."""
    return file_sha256(file) if file.is_file() else None


def now() -> str:
    """Return the time as it is written into records: UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the weights can be tested with from another working directory."""
    kept = dict(settings)
    for name in PLACES.intersection(kept):
        place = read_back(kept[name])
        is_path = isinstance(place, str) and not (place == kept[name] and place[:1] in "$@%")
        kept[name] = as_data(str(absolute(place))) if is_path else kept[name]
    return kept


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
