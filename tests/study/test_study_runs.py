"""A whole study as a user starts it: run, killed, resumed, changed, failing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from metaseg_monai.training import read_weights


class StudyRun:
    """A tiny study in a folder of its own."""

    def __init__(self, folder, bundle, settings, conditions, data):
        self.output = folder / "out"
        simulator = {k: v for k, v in settings["table#path"].items() if k != "output"}
        content = {
            "name": "Tiny",
            "question": "Does it run?",
            "bundle": str(bundle),
            "conditions": conditions,
            "seeds": [0],
            "settings": {**settings, "table#path": simulator, "dataset_dir": str(data)},
            "protocol": {"sample_size": 6},
        }
        self.file = folder / "study.json"
        self.file.write_text(json.dumps(content))
        self.folder = folder

    def start(self, *arguments):
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "metaseg_monai", "study", str(self.file)),
                *("--output", str(self.output), *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def run(self, *arguments, status=0):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=400)
        assert process.returncode == status, err[-3000:]
        return out + err

    def kill_after(self, condition, epochs):
        """Kill the study, and with it its runs, once a run has so many epochs behind it."""
        process = self.start()
        log = self.output / condition / "log.csv"
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            if log.is_file() and len(log.read_text().splitlines()) > epochs:
                break
            time.sleep(0.02)
        assert process.poll() is None, "the study ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    def weights(self, run):
        return read_weights(self.output / run / "model.pt")[0]

    def table(self, run, name="counts.csv"):
        return (self.output / run / name).read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "shapes"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, bundle, tiny, data):
    made = StudyRun(
        tmp_path_factory.mktemp("whole"), bundle, {**tiny, "epochs": 6}, ["se", "sme"], data
    )
    made.said = made.run()
    return made


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_killed_study_ends_with_the_same_weights_counts_and_tables(
    undisturbed, tmp_path, bundle, tiny, data
):
    killed = StudyRun(tmp_path, bundle, {**tiny, "epochs": 6}, ["se", "sme"], data)
    killed.kill_after("sme/seed0", epochs=2)
    record = json.loads((killed.output / "sme" / "seed0" / "run.json").read_text())
    assert record["state"] == "running"
    killed.run()
    for run in ("se/seed0", "sme/seed0"):
        assert same(killed.weights(run), undisturbed.weights(run))
        for name in ("counts.csv", "calibration.csv", "samples.npz"):
            assert killed.table(run, name) == undisturbed.table(run, name)
    assert killed.table("sme/seed0/explain", "gates.csv")
    assert "Gates" in (killed.output / "report.html").read_text()
    for table in (undisturbed.output / "tables").glob("*.csv"):
        if table.stem == "runs" or table.stem.startswith("protocol"):  # these tell times of day
            continue
        assert (killed.output / "tables" / table.name).read_bytes() == table.read_bytes()


def test_a_finished_run_is_never_run_again_unless_its_configuration_changed(
    undisturbed, tmp_path, bundle, tiny, data
):
    before = {
        run: (undisturbed.output / run / "model.pt").stat().st_mtime_ns
        for run in ("se/seed0", "sme/seed0")
    }
    assert "runs: 2, to do: 0" in undisturbed.run()
    for run, time_ns in before.items():
        assert (undisturbed.output / run / "model.pt").stat().st_mtime_ns == time_ns


def test_a_failing_run_is_reported_and_the_others_are_not_lost(tmp_path, bundle, tiny, data):
    conditions = {"se": {}, "broken": {"variant": "sme", "schema_file": "schema.json"}}
    schema = json.loads((bundle / "configs" / "schema.json").read_text())
    schema["fields"][0]["values"] = ["triangle", "ring"]
    made = StudyRun(tmp_path, bundle, {**tiny, "epochs": 1}, conditions, data)
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    said = made.run("--shuffle", "{}", status=2)
    assert "broken/seed0" in said
    assert "'disc'" in said or "disc" in said
    assert (made.output / "report.html").is_file()
    page = (made.output / "report.html").read_text()
    assert "broken/seed0" in page
