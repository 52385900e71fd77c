"""Parameters and scores of finished runs in an MLflow database, beside the study's own tables."""

import hashlib
import importlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation import read_counts
from metaseg_monai.metrics.scores import average_score, pooled_score, score_of
from metaseg_monai.study.design import Study
from metaseg_monai.study.matrix import expand
from metaseg_monai.study.record import is_finished

SCHEME = "sqlite:///"
IDENTITY = "metaseg.identity"
BATCH = 100  # parameters that MLflow takes at once
LONGEST = 6000  # characters of a parameter's value; MLflow takes no more
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def check_store(uri: str) -> None:
    """Refuse an address or a missing MLflow before anything is trained.

    Raises:
        ConfigError: as `log_run`.
    """
    _database(uri)
    _mlflow()


def track_study(uri: str, study: Study, output: str | Path) -> None:
    """Write parameters and scores of the finished runs into an MLflow store.

    Raises:
        ConfigError: as `log_run`.
    """
    folder = Path(output)
    for run in expand(study):
        if is_finished(folder / run.folder, run):
            counts = read_counts(folder / run.folder / "counts.csv")
            normal = counts[counts["mode"] == "normal"]
            of = score_of(normal).name.lower()
            scores = {f"pooled_{of}": pooled_score(normal), f"average_{of}": average_score(normal)}
            log_run(uri, study.name, run.folder, run.key, run.settings, scores)


def log_run(
    uri: str,
    study: str,
    name: str,
    key: str,
    settings: Mapping[str, Any],
    scores: Mapping[str, float],
) -> None:
    """Write one finished run into the MLflow experiment that has the study's name.

    A run of the same name and key is written once: the same content again changes nothing, other
    content takes its place. Nothing is sent over a network, and no ``mlruns`` folder is made.

    Args:
        uri: database such as ``sqlite:///runs/x/mlflow.db`` (relative, three slashes) or
            ``sqlite:////data/mlflow.db`` (absolute, four); made where it is missing.
        study: name of the experiment.
        name: of the run.
        key: of the run's configuration.
        settings: kept as text; letters that MLflow does not take in their names, such as ``#``,
            become a dot.
        scores: those that are NaN are left out.

    Raises:
        ConfigError: MLflow is not installed, the address is not a SQLite file, or MLflow refuses
            the database or a value.
    """
    database = _database(uri)
    mlflow = _mlflow()
    alchemy_error = importlib.import_module("sqlalchemy.exc").SQLAlchemyError
    values = {_name(setting): _text(value) for setting, value in settings.items()}
    scores = {_name(one): float(score) for one, score in scores.items() if not math.isnan(score)}
    identity = hashlib.sha256(json.dumps([name, key]).encode()).hexdigest()
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, study, database)
        earlier = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{identity}'")
        if any(_holds(run, values, scores) for run in earlier):
            return
        tags = {"key": key, IDENTITY: identity}
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        _write(client, run_id, values, scores)
        client.set_terminated(run_id)
        for run in earlier:
            client.delete_run(run.info.run_id)
    except (mlflow.exceptions.MlflowException, alchemy_error) as error:
        raise ConfigError(f"--tracking {uri}, study {study}, run {name}: {error}") from error


def _database(uri: str) -> Path:
    """Return the file of the address; its folder is made."""
    path = uri.removeprefix(SCHEME)
    if path == uri or not path:
        raise ConfigError(
            f"--tracking {uri}: expected a SQLite file such as {SCHEME}runs/x/mlflow.db."
        )
    database = Path(path).resolve()
    database.parent.mkdir(parents=True, exist_ok=True)
    return database


def _mlflow() -> Any:
    # MLflow reads them at each call, so it may be imported already; MONAI does so where it can
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        for needed in ("sqlalchemy", "alembic"):  # mlflow-skinny comes without them
            importlib.import_module(needed)
        return importlib.import_module("mlflow")
    except ImportError as error:
        raise ConfigError(
            'Tracking needs MLflow: pip install "metaseg-monai[tracking]", or leave out --tracking.'
        ) from error


def _experiment(client: Any, study: str, database: Path) -> str:
    """Return the id of the study's experiment; MLflow itself would keep its files in ./mlruns."""
    found = client.get_experiment_by_name(study)
    if found is not None:
        return found.experiment_id
    artifacts = database.with_name(f"{database.stem}-artifacts")
    return client.create_experiment(study, artifact_location=artifacts.as_uri())


def _write(
    client: Any, run_id: str, values: Mapping[str, str], scores: Mapping[str, float]
) -> None:
    entities = importlib.import_module("mlflow.entities")
    parameters = [entities.Param(name, value) for name, value in values.items()]
    for start in range(0, len(parameters), BATCH):
        client.log_batch(run_id, params=parameters[start : start + BATCH])
    for name, value in scores.items():
        client.log_metric(run_id, name, value)


def _holds(run: Any, values: Mapping[str, str], scores: Mapping[str, float]) -> bool:
    """Tell whether a run is complete and has this content."""
    held = (run.info.status, run.data.params, run.data.metrics)
    return held == ("FINISHED", values, scores)


def _name(name: str) -> str:
    """Return a name that MLflow takes.

    >>> _name("table#train")
    'table.train'
    """
    return re.sub(r"[^\w.\- /]", ".", name)


def _text(value: Any) -> str:
    """Return a value as text.

    >>> _text([64, 64]), _text("sme"), _text(None)
    ('[64, 64]', 'sme', 'null')
    """
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:LONGEST]
