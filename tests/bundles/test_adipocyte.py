"""The adipocyte bundle: its three trainings, killed and resumed, and what they learn."""

import copy
import json
import random
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.transforms import RandAffined
from monai.utils.enums import AdversarialIterationEvents

from metaseg_monai import evaluate, predict, report, train
from metaseg_monai.errors import CheckpointError, ConfigError, DataError, MetasegError
from metaseg_monai.sharing.card import card
from metaseg_monai.sharing.export import export
from metaseg_monai.sharing.package import _Source, package
from metaseg_monai.simulate import generate_adipocyte
from metaseg_monai.study import Study
from metaseg_monai.study.run import run_study
from metaseg_monai.training import ConditionalAdversarialTrainer, read_checkpoint, read_weights
from tests.metrics.test_conformal import script_of
from tests.training.killed_run import die, equal, in_child

CONFIGS = Path(__file__).resolve().parents[2] / "bundles/adipocyte_fluorescence_translation/configs"
NUCLEI, PRETRAIN, GAN = "train_nuclei", "pretrain", "train_gan"
SMALL = {
    "roi_size": [24, 24],
    "batch_size": 3,
    "epochs": 3,
    "network_def#channels": 4,
    "network_def#levels": 1,
    "network_def#growth": 2,
    "network_def#layers": 2,
    "network_def#reduction": 1.0,
}
OF_PHASE = {
    NUCLEI: {"last_epochs": 1, "batch_size": 2},
    PRETRAIN: {},
    GAN: {"adversary#network_def#channels": 2},
}

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A training and a validation well of one field each at two magnifications."""
    folder = tmp_path_factory.mktemp("adipocyte") / "data"
    settings = {"train": 1, "val": 1, "test": 0, "fields": 1, "magnifications": (20, 40)}
    generate_adipocyte(folder, **settings, size=56, seed=3)
    return folder


def made(phase, data, folder, *more, **settings):
    """The workflow of a phase on small data."""
    given = {**SMALL, **OF_PHASE[phase], **settings}
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in ("train", phase, *more)],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(CONFIGS.parent),
        dataset_dir=str(data),
        output_dir=str(folder),
        **given,
    )
    workflow.initialize()
    return workflow


def trained(phase, data, folder, *, death=None, **settings):
    """Train a phase in this process, which dies at (event, iteration) where told so."""
    torch.set_num_threads(1)
    trainer = made(phase, data, folder, **settings).parser.get_parsed_content("train#trainer")
    if death is not None:
        event, iteration = death
        trainer.add_event_handler(
            event, lambda engine: die() if engine.state.iteration >= iteration else None
        )
    trainer.run()


EVENTS = (
    Events.ITERATION_STARTED,
    IterationEvents.FORWARD_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    Events.ITERATION_COMPLETED,
    Events.EPOCH_COMPLETED,
)
OF_GAN = (
    AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED,
    AdversarialIterationEvents.DISCRIMINATOR_MODEL_COMPLETED,
    AdversarialIterationEvents.GENERATOR_LOSS_COMPLETED,
)


def same(one, other):
    """Whether all that two runs have left is equal to the bit, but for the time they took."""
    logs = [pd.read_csv(run / "log.csv").drop(columns="seconds") for run in (one, other)]
    checkpoints = [read_checkpoint(run / "checkpoint.pt") for run in (one, other)]
    return {
        "finished": checkpoints[0]["finished"],
        "checkpoint": equal(*checkpoints),
        "weights": equal(*(read_weights(run / "model.pt") for run in (one, other))),
        "log": logs[0].equals(logs[1]),
    }


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The run of a phase that nobody kills, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    def run(phase):
        if not (folder / phase).exists():
            work = partial(trained, phase, data, folder / phase, **start(phase, run))
            assert in_child(work) == 0
        return folder / phase

    return run


def start(phase, whole):
    """The weights that an adversarial training begins with; and it saves after every step."""
    begun = {"pretrained_file": str(whole(PRETRAIN) / "model.pt")} if phase == GAN else {}
    return {"train#checkpoint#every": 1, **begun}


def killed_at(phase, data, whole, folder, deaths):
    """Kill a run at each of these events in turn, resume it to its end, and compare it."""
    given = start(phase, whole)
    for number, death in enumerate(deaths):
        work = partial(trained, phase, data, folder, death=death, resume=number > 0, **given)
        assert in_child(work) == -9, death
    assert in_child(partial(trained, phase, data, folder, resume=True, **given)) == 0
    return same(whole(phase), folder)


@pytest.mark.parametrize(
    "phase", [GAN, *(pytest.param(one, marks=pytest.mark.slow) for one in (NUCLEI, PRETRAIN))]
)
def test_a_phase_that_is_killed_twice_ends_in_the_same_bits(phase, data, whole, tmp_path):
    events = OF_GAN if phase == GAN else EVENTS[2:]
    deaths = [(events[0], 2), (events[1], 4)]
    found = killed_at(phase, data, whole, tmp_path, deaths)
    assert found == dict.fromkeys(found, True)


@pytest.mark.slow
def test_ten_kills_at_random_in_all_phases_end_in_the_same_bits(data, whole, tmp_path):
    draw = random.Random(0)
    for number in range(10):
        phase = (NUCLEI, PRETRAIN, GAN)[number % 3]
        event = draw.choice(EVENTS + (OF_GAN if phase == GAN else ()))
        death = (event, draw.randint(2, 6))
        found = killed_at(phase, data, whole, tmp_path / str(number), [death])
        assert found == dict.fromkeys(found, True), (phase, death)


def test_an_adversarial_run_keeps_all_that_it_is_resumed_from(data, whole):
    kept = read_checkpoint(whole(GAN) / "checkpoint.pt")
    learned = {"network", "discriminator", "optimizer", "discriminator_optimizer"}
    assert set(kept["objects"]) >= {*learned, "lr_scheduler", "discriminator_lr_scheduler", "pool"}
    assert 0 < kept["objects"]["pool"]["scores"].shape[1] <= 50
    assert kept["settings"]["adversary"]["network_def"]["field"] == 70
    with pytest.raises(CheckpointError, match=r"adversary.*lr.*3e-06"):
        trained(GAN, data, whole(GAN), resume=True, discriminator_lr=1e-3, **start(GAN, whole))
    log = pd.read_csv(whole(GAN) / "log.csv")
    losses = ["train_loss", "reconstruction_loss", "generator_loss", "discriminator_loss"]
    assert log[[*losses, "val_loss"]].notna().all(axis=None)
    begun = read_weights(whole(GAN) / "model.pt")[1]["trained_on"]
    assert "incomplete" not in begun


def test_numbers_are_taken_where_settings_are_texts_of_numbers(data, tmp_path):
    """As the page of the bundle has it: --magnification 20, which fire reads as a number."""
    size = {name: value for name, value in SMALL.items() if name != "epochs"}
    given = {"dataset_dir": str(data), "magnification": 20, "restart_epochs_of": {"20": 2}}
    given |= {**size, "last_epochs": 1, "last_lr": 1e-5, "window_inferer#reflect_px": 0}
    model = train(CONFIGS.parent, tmp_path / "a", "train_nuclei,nuclei_report_size", **given)
    assert len(model.log) == 3
    of = [row["case"] for row in pd.read_csv(model.folder / "trained_on.csv").to_dict("records")]
    assert of
    assert all("20x" in case for case in of)


def test_configurations_of_the_nuclei_model_in_the_wrong_order_are_refused(data, whole, tmp_path):
    given = {**SMALL, **OF_PHASE[GAN], "dataset_dir": str(data), "last_epochs": 1}
    given["pretrained_file"] = str(whole(NUCLEI) / "model.pt")
    with pytest.raises(ConfigError, match="as in train_gan,train_nuclei"):
        train(CONFIGS.parent, tmp_path / "a", f"{NUCLEI},{GAN}", **given)


def test_an_adversarial_run_without_weights_to_begin_with_is_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match=r"at .*none\.pt.* --pretrained_file"):
        trained(GAN, data, tmp_path / "run", pretrained_file=str(tmp_path / "none.pt"))


def test_crops_of_the_nuclei_model_are_scaled_along_both_axes():
    config = json.loads((CONFIGS / f"{NUCLEI}.json").read_text())
    (component,) = [one for one in config["train#augmentation"] if one["_target_"] == "RandAffined"]
    still = {"rotate_range": 0.0, "translate_range": 0.0, "spatial_size": [16, 16]}
    settings = {**component, **still, "keys": ["image"], "mode": "bilinear"}
    del settings["_target_"]
    scale = RandAffined(**settings).set_random_state(0)
    drawn = [scale({"image": MetaTensor(torch.rand(1, 16, 16))})["image"].affine for _ in range(9)]
    found = np.array([[abs(float(one[axis, axis])) for axis in (0, 1)] for one in drawn])
    assert (found.std(axis=0) > 0.02).all()
    assert (np.abs(found - 1) < 0.12).all()


@pytest.mark.parametrize("phase", [NUCLEI, PRETRAIN])
def test_gates_steer_and_learn_from_the_first_step(phase, data, tmp_path):
    workflow = made(phase, data, tmp_path)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    network = trainer.network
    before = copy.deepcopy(network.state_dict())
    first = {}

    def keep(engine):
        first.update(copy.deepcopy(network.state_dict()))
        engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), keep)
    trainer.run()
    gates = [name for name in before if "gate" in name]
    assert gates
    changed = [name for name in gates if not torch.equal(before[name], first[name])]
    assert changed
    batch = trainer.state.batch
    network.load_state_dict(first)
    network.eval()
    told = batch["meta"].roll(1, dims=1)
    answers = [network(batch["image"], meta) for meta in (batch["meta"], told)]
    assert not torch.equal(*answers)
    unknown = network(batch["image"], None)  # metadata are dropped in training, so it may be asked
    assert torch.isfinite(unknown).all()
    assert not torch.equal(unknown, answers[0])


@pytest.mark.parametrize("variant", ["none", "film"])
def test_every_variant_trains_without_other_settings(variant, data, tmp_path):
    trainer = made(PRETRAIN, data, tmp_path, variant=variant, epochs=1).parser
    engine = trainer.get_parsed_content("train#trainer")
    engine.run()
    assert torch.isfinite(engine.state.output["loss"])
    facts = read_weights(tmp_path / "model.pt")[1]
    assert facts["variant"] == variant


@pytest.mark.slow
def test_the_nuclei_model_trains_against_a_discriminator(data, whole, tmp_path):
    given = {**OF_PHASE[NUCLEI], "pretrained_file": str(whole(NUCLEI) / "model.pt")}
    workflow = made(GAN, data, tmp_path, NUCLEI, **given, epochs=2)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert isinstance(trainer, ConditionalAdversarialTrainer)
    trainer.run()
    assert type(trainer.loss_function).__name__ == "LupiLoss"
    assert pd.read_csv(tmp_path / "log.csv").notna().all(axis=None)


def test_experts_of_images_are_tested_on_what_they_can_answer(tmp_path):
    """An expert knows the scale of its own labels alone."""
    made = {"train": 1, "val": 1, "test": 1, "fields": 1, "magnifications": (20, 40), "size": 48}
    generate_adipocyte(tmp_path / "data", **made, seed=3)
    settings = {name: value for name, value in SMALL.items() if name != "epochs"}
    settings |= {"dataset_dir": str(tmp_path / "data"), "epochs": 2, "modes": ["normal"]}
    only = {"magnification": ["20", "40"], "channel": ["lipids"]}
    settings["cases"] = {"_target_": "metaseg_monai.tables.select_cases", "only": only}
    study = Study(
        **{"name": "s", "bundle": str(CONFIGS.parent), "conditions": ["experts"]},
        **{"settings": settings, "seeds": [0], "explain": False},
    )
    assert run_study(study, tmp_path / "out", workers=1) == {}
    for domain in ("20", "40"):
        folder = tmp_path / "out" / "experts" / "seed0" / domain
        assert set(pd.read_csv(folder / "counts.csv")["domain"].astype(str)) == {domain}
        assert not (folder / "problems.csv").exists()
    assert "experts" in report(tmp_path / "out").html.read_text()


# The nuclei model as a model: tested, predicting, told of, and given on.


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    """The nuclei model, trained for a moment and evaluated, and its data: a well of each split."""
    folder = tmp_path_factory.mktemp("runs") / "nuclei"
    data = folder.with_name("data")
    few = {"train": 1, "val": 1, "test": 1, "fields": 1, "magnifications": (20,), "size": 56}
    generate_adipocyte(data, **few, seed=3)
    settings = {**SMALL, **OF_PHASE[NUCLEI], "epochs": 1, "last_epochs": 0}
    train(CONFIGS.parent, folder, NUCLEI, dataset_dir=str(data), **settings)
    found = evaluate(folder, modes=["normal", "missing"])
    return folder, found, data


def test_the_nuclei_model_is_tested_on_the_fluorescence_of_nuclei(nuclei):
    _, found, _ = nuclei
    assert set(found.counts["channel"]) == {"nuclei"}
    assert set(found.counts["class"]) == {1}  # of the network's three channels the first
    assert found.counts["case"].nunique() == 1
    assert (found.scores["medmae"] > 0).all()
    assert found.scores["case_mean_medmae"].tolist() == found.scores["medmae"].tolist()
    assert not found.problems


def test_the_nuclei_model_predicts_no_other_stain(nuclei, tmp_path):
    folder, _, data = nuclei
    made = predict(folder, data, tmp_path / "all")
    assert "images: " in str(made)
    assert {one.name.rpartition("__")[2] for one in made.masks} == {"nuclei.ome.tif"}
    assert len(made.masks) == 3
    assert len(made.problems) == 6
    assert "'20/lipids'; those at hand are of 20/nuclei" in made.problems[0].problem
    table = pd.read_csv(data / "table.csv")[["image", "magnification"]].drop_duplicates()
    table.to_csv(data / "bare.csv", index=False)
    unknown = {"channel": "unknown"}  # the network has one stain, whatever a table says of it
    alone = predict(folder, data / "bare.csv", tmp_path / "alone", meta=unknown)
    assert len(alone.masks) == 3
    assert not alone.problems
    for name, flag in (("metadata", "meta"), ("dataset_dir", "source"), ("output_dir", "output")):
        with pytest.raises(ConfigError, match=f"{name} is what --{flag} sets"):
            predict(folder, data, tmp_path / "none", **{name: "x"})
    first = tifffile.imread(alone.masks[0])
    assert (first.dtype, first.shape) == (np.uint16, (56, 56))


def test_the_confidence_of_its_mask_is_held_against_wells(nuclei, tmp_path, capsys):
    folder, _, _ = nuclei
    wells = {"train": 0, "val": 0, "test": 4, "fields": 1, "magnifications": (20,), "size": 56}
    generate_adipocyte(tmp_path / "wells", **wells, seed=4)
    script = script_of("conformal_pixels")
    given = {**SMALL, "dataset": str(tmp_path / "wells"), "share": 0.5}
    told = {"levels": "0.5", "divisions": 2, "output": str(tmp_path / "coverage.csv")}
    script.main(str(folder / "model.pt"), **told, **given)
    table = pd.read_csv(tmp_path / "coverage.csv")
    assert table["class"].tolist() == ["background", "nucleus"]
    assert (table["wells"] == 2).all()
    assert table["coverage"].between(0.01, 1).all()
    assert "nuclei at 0.5, mask: " in capsys.readouterr().out
    for wrong, message in (
        ({"levels": "high"}, "'high': expected a share"),
        ({"divisions": 0}, "divisions is 0"),
        ({"share": 1}, "1: expected a share"),
        ({"output": str(tmp_path / "none" / "a.csv")}, "no such folder"),
        ({"dataset": str(tmp_path)}, r"table\.csv"),
    ):
        with pytest.raises(MetasegError, match=message):
            script.main(str(folder / "model.pt"), **{**given, **wrong})
    with pytest.raises(DataError, match=r"2 of 4 wells .* too few for 0\.9"):
        script.main(str(folder / "model.pt"), levels="0.5,0.9", **given)


def test_the_card_of_a_model_of_images_names_its_scores(nuclei, tmp_path):
    folder, found, _ = nuclei
    card(folder, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert 'pipeline_tag: "image-to-image"' in text
    (told,) = [line for line in text.splitlines() if line.startswith("model-index: ")]
    (scores,) = json.loads(told.partition(": ")[2])[0]["results"]
    assert [one["type"] for one in scores["metrics"]] == ["medmae", "psnr", "ssim"]
    assert scores["metrics"][0]["value"] == round(found.scores.loc["normal", "medmae"], 4)
    assert "| test mode | medMAE | mean of domains | mean of cases |" in text
    assert "Measured medMAE (lower is better) with true metadata" in text
    assert "F1" not in text
    assert "mask" not in text.partition("## Intended use")[2]


def test_a_model_that_learned_of_crops_is_reported(nuclei, tmp_path):
    folder, _, _ = nuclei
    runs = shutil.copytree(folder, tmp_path / "runs" / folder.name).parent
    made = report(runs)
    assert "medMAE" in made.html.read_text(encoding="utf-8")
    cases = pd.read_csv(runs / folder.name / "cases.csv")
    assert cases["case"].is_unique
    assert set(cases["split"]) == {"train", "val", "test"}


def test_an_ensemble_predicts_the_mean_of_its_images(nuclei, tmp_path):
    folder, found, data = nuclei
    other = folder.with_name("other")
    settings = {**SMALL, **OF_PHASE[NUCLEI], "epochs": 1, "last_epochs": 0, "seed": 7}
    train(CONFIGS.parent, other, NUCLEI, dataset_dir=str(data), **settings)
    both = evaluate([folder, other], output_dir=tmp_path / "both", modes=["normal"])
    assert both.scores.loc["normal", "medmae"] > 0
    assert both.counts["case"].tolist() == found.counts["case"].unique().tolist()
    bare = data / "bare.csv"
    pd.read_csv(data / "table.csv").drop_duplicates("image")[["image", "magnification"]].to_csv(
        bare, index=False
    )
    ways = {"one": folder, "two": other, "mean": [folder, other]}
    given = {"meta": {"channel": "nuclei"}}
    made = {name: predict(one, bare, tmp_path / name, **given) for name, one in ways.items()}
    one, two, mean = (
        np.stack([tifffile.imread(file) for file in made[name].masks]).astype(float)
        for name in ways
    )
    assert np.abs(one - two).max() > 100
    np.testing.assert_allclose(mean, (one + two) / 2, atol=1)  # each is rounded
    cut = predict(folder, bare, tmp_path / "cut", clip=True, **given)
    low, high = read_weights(folder / "model.pt")[1]["scaling"]["label"]["ranges"]["20/nuclei"][0]
    clipped = np.stack([tifffile.imread(file) for file in cut.masks]).astype(float)
    np.testing.assert_allclose(clipped, one.clip(low, high), atol=1)
    assert len(np.unique(one)) > 1000  # not of bfloat16, which has 256 values in an octave


@pytest.mark.slow
def test_a_package_of_a_model_of_images_works_alone_and_tells_its_answers(nuclei, tmp_path):
    made = package(nuclei[0], tmp_path)
    assert not made.problems
    assert "inference runs without metaseg_monai" in [rule.rule for rule in made.rules]
    with zipfile.ZipFile(made.archive) as archive:
        root = "adipocyte_fluorescence_translation"
        about = json.loads(archive.read(f"{root}/configs/metadata.json"))
        samples = archive.read(f"{root}/samples/table.csv").decode().splitlines()[1:]
    answer = about["network_data_format"]["outputs"]["pred"]
    assert answer["num_channels"] == 3
    assert answer["channel_def"]["0"] == "fluorescence"
    assert samples
    assert all("nuclei" in row.split(",") for row in samples)


def test_a_package_of_a_model_of_images_has_its_configurations_and_scores(nuclei):
    folder, found, _ = nuclei
    recorded = json.loads((folder / "training.json").read_text())["settings"]
    source = _Source(CONFIGS.parent, folder, recorded, [NUCLEI], trust=False)
    scores = source.scores()
    assert scores["test_case_mean_medmae"] == round(found.scores.loc["normal", "medmae"], 4)
    assert not [name for name in scores if "f1" in name]
    configs = source.configs()
    assert "validate" not in configs["evaluate"]  # a delta keeps its ids as they are
    assert configs["train"]["network_def"]["_target_"].endswith("NucleiLupiUnet")


def test_int8_is_refused_where_images_are_predicted(nuclei, tmp_path, monkeypatch):
    of_export = "metaseg_monai.sharing.export."
    for name in ("choose", "is_installed"):
        monkeypatch.setattr(f"{of_export}{name}", lambda *_: "openvino")
    with pytest.raises(ConfigError, match="predicts images, and int8 is kept only where no mask"):
        export(nuclei[0], "openvino", tmp_path / "int8", precision="int8")
    assert not (tmp_path / "int8").exists()
