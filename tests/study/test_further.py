"""Conditions with further configurations, and such that begin with the weights of others."""

import json
from pathlib import Path

import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.study import Study, worker
from metaseg_monai.study import run as runner
from metaseg_monai.study.matrix import expand
from metaseg_monai.study.record import fix, plan, read_record
from metaseg_monai.study.workers import Slot
from metaseg_monai.training.weights import read_weights
from tests.study.test_runner import Fake

ADIPOCYTE = Path(__file__).resolve().parents[2] / "bundles/adipocyte_fluorescence_translation"
GAN = {"variant": "none", "configuration": "train_gan", "pretrained": "pretrain"}
PHASES = {
    "gan": GAN,
    "gan-flat": {**GAN, "gradient_weight": 0.0},
    "pretrain": {"variant": "none", "configuration": "pretrain"},
}

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def study(bundle, conditions, **more):
    return Study(name="s", bundle=str(bundle), conditions=conditions, **more)


def test_conditions_take_deltas_of_the_bundle_and_begin_with_each_other(tmp_path):
    runs = expand(study(ADIPOCYTE, PHASES, seeds=[0, 1]))
    assert [run.condition for run in runs] == ["pretrain", "gan", "gan-flat"] * 2
    assert [run.pretrained for run in runs[3:]] == [None, *["pretrain/seed1"] * 2]
    assert [list(run.configuration) for run in runs[:2]] == [["pretrain"], ["train_gan"]]
    assert [run.epochs for run in runs[:2]] == [40, 10]  # as the deltas say
    assert runs[2].settings["gradient_weight"] == 0.0
    assert len({run.key for run in runs}) == 6
    earlier = {**PHASES, "pretrain": {**PHASES["pretrain"], "base_lr": 1e-4}}
    changed = expand(study(ADIPOCYTE, earlier, seeds=[0]))
    assert changed[1].settings == runs[1].settings
    assert changed[1].key != runs[1].key  # it would begin with other weights
    told = worker.starting(ADIPOCYTE, {}, ["train_gan"], tmp_path / "model.pt")
    assert told == {"pretrained_file": str(tmp_path / "model.pt")}


def test_settings_of_a_delta_are_known_with_it_alone(bundle):
    alone = {"gan": {"variant": "none", "gradient_weight": 1.0}}
    with pytest.raises(ConfigError, match="gradient_weight"):
        expand(study(ADIPOCYTE, alone))
    (run,) = expand(study(ADIPOCYTE, alone, configuration="train_gan", seeds=[0]))
    assert run.settings["gradient_weight"] == 1.0
    (run,) = expand(study(bundle, ["se"], configuration="dynunet_ds,recipe", seeds=[0]))
    assert list(run.configuration) == ["dynunet_ds", "recipe"]
    (plain,) = expand(study(bundle, ["se"], seeds=[0]))
    assert run.key != plain.key
    assert plain.settings == run.settings
    with pytest.raises(ConfigError, match="no such configuration or file"):
        expand(study(bundle, ["se"], configuration="recipes"))


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"se": {"pretrained": "me"}}, "pretrained is 'me'; expected the name of another"),
        ({"se": {}, "experts": {"pretrained": "se"}}, "no experts"),
        ({"se": {}, "me": {"pretrained": "se"}}, "has another variant"),
        ({"se": {"pretrained": "se"}}, "begin with themselves"),
        (
            {
                "a": {"variant": "se", "pretrained": "b"},
                "b": {"variant": "se", "pretrained": "a"},
            },
            "begin with themselves",
        ),
        ({"se": {"configuration": 3}}, "configuration is 3; expected names or files"),
        ({"se": {"configuration": "a,,b"}}, "expected names or files"),
    ],
)
def test_weights_that_cannot_be_begun_with_are_refused_before_anything_runs(conditions, told):
    with pytest.raises(ConfigError, match=told):
        study("b", conditions)


def test_a_run_waits_for_that_whose_weights_it_begins_with(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PAUSE", 0.0)
    begun = []

    class Told(Fake):
        alive = ()

        def __init__(self, folder, slot, threads):
            super().__init__(folder, slot, threads)
            begun.append((folder.parent.name, {*type(self).alive}))

    Told.alive = []
    runs = expand(study(ADIPOCYTE, {**PHASES, "none": {}}, seeds=[0]))
    assert not runner.run_all(runs[::-1], tmp_path, tmp_path, [Slot(None, 1)] * 4, Told)
    names = [name for name, _ in begun]
    assert names[:2] == ["pretrain", "none"] or names[:2] == ["none", "pretrain"]
    assert set(names[2:]) == {"gan", "gan-flat"}
    assert all("pretrain" not in alive for name, alive in begun if name.startswith("gan"))


def test_a_training_begins_with_the_weights_of_the_other(tmp_path, bundle, tiny):
    held = {"variant": "se", "pretrained": "se", "base_lr": 1e-12, "max_lr": 1e-12}
    settings = {**tiny, "epochs": 1, "dataset_dir": str(tmp_path / "data")}
    made = study(bundle, {"se": {}, "held": held}, seeds=[0], settings=settings)
    runs = expand(made)
    fix(made, runs, tmp_path / "out")
    for run in runs:
        folder, _ = plan(tmp_path / "out", run, bundle, 1)
        assert worker._run(folder, trust=False) == 0, read_record(folder)["error"]
    before, after = (read_weights(tmp_path / "out" / run.folder / "model.pt") for run in runs)
    learned = [name for name, one in before[0].items() if one.is_floating_point()]
    weights = [name for name in learned if "running" not in name]
    assert weights
    for name in weights:
        torch.testing.assert_close(before[0][name], after[0][name], rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "out/held/seed0/run.json").read_text())["configuration"] == []
