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

SCHEME = "sqlite:///"
IDENTITY, CONTENT = "metaseg.identity", "metaseg.content"
BATCH = 100  # parameters that MLflow takes at once
LONGEST = 6000  # characters of a parameter's value; MLflow takes no more
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def check(uri: str) -> None:
    """Refuse an address or a missing MLflow before anything is trained.

    Raises:
        ConfigError: as `log_run`.
    """
    _database(uri)
    _mlflow()


def log_run(
    uri: str,
    study: str,
    run_name: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> None:
    """Write one finished run into the MLflow experiment that has the study's name.

    A run of the same name and tags is written once: the same content again changes nothing, other
    content takes its place. Nothing is sent over a network, and no ``mlruns`` folder is made.

    Args:
        uri: database such as ``sqlite:///runs/x/mlflow.db`` (relative, three slashes) or
            ``sqlite:////data/mlflow.db`` (absolute, four); made where it is missing.
        study: name of the experiment.
        run_name: name of the run.
        parameters: settings, kept as text; letters that MLflow does not take in their names, such
            as ``#``, become a dot.
        metrics: scores; those that are NaN are left out.
        tags: what tells apart runs of one name, such as the key of the settings.

    Raises:
        ConfigError: MLflow is not installed, the address is not a SQLite file, or MLflow refuses
            the database or a value.
    """
    database = _database(uri)
    mlflow = _mlflow()
    alchemy_error = importlib.import_module("sqlalchemy.exc").SQLAlchemyError
    values = {_name(name): _text(value) for name, value in parameters.items()}
    scores = {_name(name): float(value) for name, value in metrics.items() if not math.isnan(value)}
    identity, content = _digest(run_name, tags), _digest(values, scores)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, study, database)
        earlier = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{identity}'")
        if any(_holds(run, content) for run in earlier):
            return
        marks = {**tags, IDENTITY: identity, CONTENT: content}
        run_id = client.create_run(experiment, run_name=run_name, tags=marks).info.run_id
        _write(client, run_id, values, scores)
        client.set_terminated(run_id)
        for run in earlier:
            client.delete_run(run.info.run_id)
    except (mlflow.exceptions.MlflowException, alchemy_error) as error:
        raise ConfigError(f"--tracking {uri}, study {study}, run {run_name}: {error}") from error


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


def _write(client: Any, run_id: str, values: dict[str, str], scores: dict[str, float]) -> None:
    entities = importlib.import_module("mlflow.entities")
    parameters = [entities.Param(name, value) for name, value in values.items()]
    for start in range(0, len(parameters), BATCH):
        client.log_batch(run_id, params=parameters[start : start + BATCH])
    for name, value in scores.items():
        client.log_metric(run_id, name, value)


def _holds(run: Any, content: str) -> bool:
    """Tell whether a run is complete and has this content."""
    return run.info.status == "FINISHED" and run.data.tags.get(CONTENT) == content


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
