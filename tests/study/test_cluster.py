import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.study import workers as cluster
from metaseg_monai.study.workers import Cluster, Job, Slot
from tests.extras import needed

SHOW = "import os, sys; print(os.getcwd(), os.environ['OMP_NUM_THREADS']); sys.exit({status})"
SBATCH = """#!/bin/sh
for file; do :; done
test -e {folder}/refuse && {{ echo "sbatch: error: invalid partition" >&2; exit 1; }}
pwd > {folder}/submitted
cp "$file" {folder}/script
test -e {folder}/keep || SLURM_JOB_ID=7 SLURM_PROCID=0 setsid sh "$file" > /dev/null 2>&1 &
echo Submitted batch job 7
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do
  case "$1" in --output|--error) shift;; esac
  shift
done
exec "$@"
"""
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
echo "7|$(cat {folder}/state)|node1"
"""


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Submits a run, `se/seed3`, that is the given Python code."""
    needed("submitit")
    monkeypatch.chdir(tmp_path)

    def start(code, *settings):
        monkeypatch.setattr(cluster, "command", lambda *_: [sys.executable, "-c", code])
        folder = tmp_path / "se" / "seed3"
        folder.mkdir(parents=True)
        return Cluster(tmp_path, *settings)(folder, Slot(None, 1), 3)

    return start


def wait(job, seconds=20.0):
    end = time.monotonic() + seconds
    while job.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return job.poll()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder that plays the cluster: programs that take a job and tell its state."""
    needed("submitit")
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "state").write_text("RUNNING")
    scancel = f"#!/bin/sh\necho $1 > {folder}/cancelled\n"
    programs = {"sbatch": SBATCH.format(folder=folder), "srun": SRUN, "scancel": scancel}
    programs["sacct"] = SACCT.format(folder=folder)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{Path(shutil.which('sh')).parent}"
    monkeypatch.setenv("PATH", path)
    sys.modules["submitit"].SlurmJob.watcher.clear()
    return folder


class Fake:
    """submitit's handle of a job that has left no result."""

    job_id = "7"

    def __init__(self, folder, state, done=False):
        self.state, self.ended, self.cancelled = state, done, False
        self.paths = SimpleNamespace(result_pickle=folder / "none.pkl", stderr=folder / "err")

    def done(self):
        return self.ended

    def cancel(self, check):
        self.cancelled = True


@pytest.mark.parametrize("status", [0, 3])
def test_a_job_runs_in_the_callers_folder_and_hands_back_its_status(tmp_path, submit, status):
    job = submit(SHOW.format(status=status), "local", {"timeout_min": 1})
    assert job.poll() is None
    assert wait(job) == status
    assert (tmp_path / "se" / "seed3" / "run.log").read_text() == f"{tmp_path} 3\n"


def test_a_stopped_job_ends_and_counts_as_failed(tmp_path, submit, monkeypatch):
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    job = submit("import pathlib, time; pathlib.Path('up').touch(); time.sleep(60)", "local")
    while not (tmp_path / "up").exists():
        assert job.poll() is None
        time.sleep(0.05)
    job.stop()
    assert wait(job) == 1
    assert "ended without a result" in (tmp_path / "se" / "seed3" / "run.log").read_text()


def test_slurm_runs_a_job_with_the_settings(tmp_path, slurm, submit, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "99")  # of the job that the study itself is
    settings = {"timeout_min": 60, "gpus_per_node": 1, "slurm_partition": "gpu"}
    job = submit(SHOW.format(status=5), "slurm", settings)
    assert wait(job) == 5
    assert (tmp_path / "se" / "seed3" / "run.log").read_text() == f"{tmp_path} 3\n"
    script = (slurm / "script").read_text()
    for line in ("gpus-per-node=1", "partition=gpu", "time=60", "job-name=se-seed3"):
        assert f"#SBATCH --{line}\n" in script


def test_a_waiting_job_may_take_a_day_and_is_cancelled_when_stopped(slurm, submit):
    (slurm / "keep").touch()
    submit("").stop()
    assert "#SBATCH --time=1440\n" in (slurm / "script").read_text()
    assert (slurm / "cancelled").read_text() == "7\n"


def test_a_job_killed_by_slurm_is_a_failure_that_names_the_state(
    tmp_path, slurm, submit, monkeypatch
):
    (slurm / "keep").touch()
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    job = submit("")
    assert job.poll() is None
    (slurm / "state").write_text("OUT_OF_MEMORY")
    time.sleep(0.01)  # submitit asks at most once in a millisecond, even when forced
    job.job.get_info(mode="force")
    assert job.poll() == 1
    told = "job 7: ended without a result, its state is OUT_OF_MEMORY"
    assert told in (tmp_path / "se" / "seed3" / "run.log").read_text()


def test_a_refused_job_says_why(slurm, submit):
    (slurm / "refuse").touch()
    with pytest.raises(ConfigError, match=r"slurm did not accept the job se-seed3: .*invalid part"):
        submit("")


def test_a_preempted_job_may_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "REQUEUE", 0.2)
    fake = Fake(tmp_path, "PREEMPTED")
    job = Job(fake, tmp_path / "log")
    assert job.poll() is None
    fake.state = "RUNNING"
    time.sleep(0.3)
    assert job.poll() is None
    fake.state = "PREEMPTED"
    assert job.poll() is None
    time.sleep(0.3)
    assert job.poll() == 1
    assert "its state is PREEMPTED" in (tmp_path / "log").read_text()


def test_a_result_may_appear_late_on_a_shared_disk(tmp_path):
    fake = Fake(tmp_path, "COMPLETED", done=True)
    fake.exception, fake.result = lambda: None, lambda: 0
    job = Job(fake, tmp_path / "log")
    assert job.poll() is None
    fake.paths.result_pickle.touch()
    assert job.poll() == 0


def test_an_ended_job_is_not_cancelled(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    fake = Fake(tmp_path, "FAILED", done=True)
    Job(fake, tmp_path / "log").stop()
    assert not fake.cancelled


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r'pip install "metaseg-monai\[slurm\]"'):
        Cluster(tmp_path)


def test_no_slurm_here_is_told(tmp_path, monkeypatch):
    needed("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r'--cluster slurm: .*"srun"'):
        Cluster(tmp_path)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("cloud", {}, "--cluster cloud: .*executor named cloud"),
        ("local", {"slurm_partitoin": "gpu"}, "Unknown argument 'partitoin'"),
        ("local", {"hours": 1}, "'hours' need to be prefixed"),
        ("local", {"timeout_min": "1h"}, '"timeout_min" expected type'),
        ("local", {"tasks_per_node": 2}, "tasks_per_node must be 1"),
    ],
)
def test_wrong_settings_are_refused_in_submitits_words(tmp_path, name, settings, words):
    needed("submitit")
    with pytest.raises(ConfigError, match=words):
        Cluster(tmp_path, name, settings)
