"""What was fixed, and when: the study and its runs in the output folder, with every change."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import replacing
from metaseg_monai.study.design import Study
from metaseg_monai.study.matrix import Run
from metaseg_monai.study.record import now

STUDY = "study.json"
PLAN = "plan.json"
HISTORY = "protocol.json"


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


def _write(path: Path, content: Any) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
