import logging
import math
import os
import sys

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.study.tracking import log_run
from tests.extras import needed

SETTINGS = {"variant": "sme", "table#train": 12, "roi_size": [32, 32], "domain": None}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests, since making one takes seconds; each test has its own study."""
    for name in ("mlflow", "sqlalchemy", "alembic"):
        needed(name)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/new/mlflow.db"


@pytest.fixture
def runs(uri):
    """Reads the runs of a study."""

    def read(study):
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=uri)
        return client.search_runs([client.get_experiment_by_name(study).experiment_id])

    return read


def test_parameters_and_scores_are_kept_and_nan_is_left_out(uri, runs):
    log_run(uri, "kept", "sme/seed3", "abc", SETTINGS, {"f1": 0.75, "empty": math.nan})
    (run,) = runs("kept")
    assert run.info.run_name == "sme/seed3"
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"f1": 0.75}
    assert run.data.params == {
        "variant": "sme",
        "table.train": "12",
        "roi_size": "[32, 32]",
        "domain": "null",
    }
    assert run.data.tags["key"] == "abc"


def test_a_run_is_written_once_and_new_scores_take_the_place_of_the_old(uri, runs):
    written = []
    for score in (0.5, 0.5, 0.25):
        log_run(uri, "once", "sme/seed3", "abc", SETTINGS, {"f1": score})
        (run,) = runs("once")
        written.append((run.info.run_id, run.data.metrics["f1"]))
    assert written[0] == written[1]
    assert written[2][0] != written[0][0]
    assert written[2][1] == 0.25


def test_other_names_and_keys_are_other_runs(uri, runs):
    for name, key in (("se", "a"), ("se", "b"), ("me", "a")):
        log_run(uri, "others", name, key, {}, {"f1": 0.5})
    found = {(run.info.run_name, run.data.tags["key"]) for run in runs("others")}
    assert found == {("se", "a"), ("se", "b"), ("me", "a")}


def test_a_run_left_half_written_is_written_again(uri, runs):
    import mlflow

    log_run(uri, "half", "se", "a", {}, {"f1": 0.5})
    (run,) = runs("half")
    mlflow.MlflowClient(tracking_uri=uri).update_run(run.info.run_id, status="RUNNING")
    log_run(uri, "half", "se", "a", {}, {"f1": 0.5})
    (again,) = runs("half")
    assert again.info.status == "FINISHED"
    assert again.info.run_id != run.info.run_id


def test_many_and_long_parameters_are_taken(uri, runs):
    settings = {f"setting{number}": number for number in range(250)} | {"long": "x" * 9000}
    log_run(uri, "many", "se", "a", settings, {})
    (run,) = runs("many")
    assert len(run.data.params) == 251
    assert run.data.params["long"] == "x" * 6000


def test_nothing_is_left_in_the_working_folder(uri, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log_run(uri, "tidy", "se", "a", {}, {"f1": 0.5})
    assert len(runs("tidy")) == 1
    assert list(tmp_path.iterdir()) == []


def test_mlflow_is_told_to_send_nothing(uri, monkeypatch):
    for name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    log_run(uri, "quiet", "se", "a", {}, {})
    assert os.environ["DO_NOT_TRACK"] == os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_file_that_is_no_database_is_refused(uri, tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    with pytest.raises(ConfigError, match=r"--tracking .*mlflow.db, study s, run se: "):
        log_run(f"sqlite:///{tmp_path}/mlflow.db", "s", "se", "a", {}, {})


@pytest.mark.parametrize("address", ["http://example.org", "runs/mlflow.db", "sqlite:///"])
def test_only_a_sqlite_file_is_taken(address):
    with pytest.raises(ConfigError, match=f"--tracking {address}: expected a SQLite file such as"):
        log_run(address, "s", "se", "a", {}, {})


@pytest.mark.parametrize("package", ["mlflow", "alembic"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    for name in ("sqlalchemy", "alembic", "mlflow"):
        if name == package:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r'pip install "metaseg-monai\[tracking\]"'):
        log_run(f"sqlite:///{tmp_path}/mlflow.db", "s", "se", "a", {}, {})
