"""The adipocyte bundle: its three trainings, killed and resumed, and what they learn."""

import copy
import random
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines import IterationEvents
from monai.utils.enums import AdversarialIterationEvents

from metaseg_monai.errors import CheckpointError
from metaseg_monai.simulate import generate_adipocyte
from metaseg_monai.training import ConditionalAdversarialTrainer, read_checkpoint, read_weights
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
    """The run of each phase that nobody kills; the last begins with the weights of the second."""
    folder = tmp_path_factory.mktemp("whole")
    for phase in (PRETRAIN, NUCLEI, GAN):
        assert in_child(partial(trained, phase, data, folder / phase, **start(phase, folder))) == 0
    return folder


def start(phase, whole):
    """The weights that an adversarial training begins with; and it saves after every step."""
    begun = {"pretrained_file": str(whole / PRETRAIN / "model.pt")} if phase == GAN else {}
    return {"train#checkpoint#every": 1, **begun}


def killed_at(phase, data, whole, folder, deaths):
    """Kill a run at each of these events in turn, resume it to its end, and compare it."""
    given = start(phase, whole)
    for number, death in enumerate(deaths):
        work = partial(trained, phase, data, folder, death=death, resume=number > 0, **given)
        assert in_child(work) == -9, death
    assert in_child(partial(trained, phase, data, folder, resume=True, **given)) == 0
    return same(whole / phase, folder)


@pytest.mark.parametrize("phase", [NUCLEI, PRETRAIN, GAN])
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
    kept = read_checkpoint(whole / GAN / "checkpoint.pt")
    learned = {"network", "discriminator", "optimizer", "discriminator_optimizer"}
    assert set(kept["objects"]) >= {*learned, "lr_scheduler", "discriminator_lr_scheduler", "pool"}
    assert 0 < kept["objects"]["pool"]["scores"].shape[1] <= 50
    assert kept["settings"]["adversary"]["network_def"]["field"] == 70
    with pytest.raises(CheckpointError, match=r"adversary.*lr.*3e-06"):
        trained(GAN, data, whole / GAN, resume=True, discriminator_lr=1e-3, **start(GAN, whole))
    log = pd.read_csv(whole / GAN / "log.csv")
    losses = ["train_loss", "reconstruction_loss", "generator_loss", "discriminator_loss"]
    assert log[[*losses, "val_loss"]].notna().all(axis=None)
    begun = read_weights(whole / GAN / "model.pt")[1]["trained_on"]
    assert "incomplete" not in begun


def test_an_adversarial_run_without_weights_to_begin_with_is_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights at .*none\.pt"):
        trained(GAN, data, tmp_path / "run", pretrained_file=str(tmp_path / "none.pt"))


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


def test_the_nuclei_model_trains_against_a_discriminator(data, whole, tmp_path):
    given = {**OF_PHASE[NUCLEI], "pretrained_file": str(whole / NUCLEI / "model.pt")}
    workflow = made(GAN, data, tmp_path, NUCLEI, **given, epochs=2)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert isinstance(trainer, ConditionalAdversarialTrainer)
    trainer.run()
    assert type(trainer.loss_function).__name__ == "LupiLoss"
    assert pd.read_csv(tmp_path / "log.csv").notna().all(axis=None)
