import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.study import run as runner
from metaseg_monai.study.matrix import Run
from metaseg_monai.study.record import read_record, write_record
from metaseg_monai.study.workers import Slot, slots


def run(name, epochs=2):
    return Run(name, 0, 0, None, {}, epochs, f"{name}/seed0", f"key of {name}")


class Fake:
    """A run that ends at its second look; its name says how."""

    alive: list[str]

    def __init__(self, folder, slot, threads):
        self.folder, self.looks = folder, 0
        type(self).alive.append(folder.parent.name)
        self.most = max(getattr(type(self), "most", 0), len(type(self).alive))
        type(self).most = self.most

    def poll(self):
        self.looks += 1
        name = self.folder.parent.name
        if self.looks < 2:
            return None
        type(self).alive.remove(name)
        if name == "killed":
            return -9
        state = {"state": "failed", "error": "no such image"} if name == "bad" else {}
        write_record(self.folder, {**read_record(self.folder), "state": "finished", **state})
        return 1 if name == "bad" else 0

    def stop(self):
        type(self).alive.remove(self.folder.parent.name)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(runner, "PAUSE", 0.0)
    return type("Fresh", (Fake,), {"alive": [], "most": 0})


def test_a_failing_run_is_told_and_the_others_go_on(tmp_path, fake, capsys):
    runs = [run("bad"), run("a"), run("killed"), run("b"), run("c")]
    failed = runner.run_all(runs, tmp_path, tmp_path, [Slot(None, 1)] * 2, fake)
    assert sorted(failed) == ["bad/seed0", "killed/seed0"]
    assert failed["bad/seed0"].startswith("no such image (see ")
    assert "ended with status -9" in failed["killed/seed0"]
    states = [read_record(tmp_path / run.folder)["state"] for run in runs]
    assert states == ["failed", "finished", "planned", "finished", "finished"]
    assert "bad/seed0 failed: no such image" in capsys.readouterr().err
    assert fake.most == 2
    assert fake.alive == []


def test_when_the_study_is_stopped_its_runs_are_too(tmp_path, fake, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run_all([run("a"), run("b")], tmp_path, tmp_path, [Slot(None, 1)] * 2, fake)
    assert fake.most == 2
    assert fake.alive == []


def test_progress_counts_the_epochs_of_runs_under_way(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,lr\n1,0.1\n2,0.1\n")
    assert runner._part(tmp_path, epochs=4) == pytest.approx(0.9 * 0.5)
    assert runner._part(tmp_path, epochs=1) == pytest.approx(0.9)
    assert runner._part(tmp_path / "nothing", epochs=4) == 0.0


def test_slots_divide_the_machine(monkeypatch):
    import torch

    from metaseg_monai.study import workers as processes

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    assert slots() == [Slot(None, 1)] * 2
    assert slots(workers=1) == [Slot(None, 2)]
    monkeypatch.setattr(processes, "_cores", lambda: 16)
    assert slots() == [Slot(None, 4)] * 4
    assert slots(workers=3, threads=5) == [Slot(None, 5)] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slots() == [Slot(0, 8), Slot(1, 8)]
    assert [slot.gpu for slot in slots(workers=4)] == [0, 1, 0, 1]
    with pytest.raises(ConfigError, match="--workers 0"):
        slots(workers=0)


def test_a_gpu_is_named_as_the_environment_does(monkeypatch):
    from metaseg_monai.study.workers import _visible

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert _visible(1) == "5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert _visible(1) == "1"
