"""A run stops where a value is not finite, is written down by epochs, and shows how far it is."""

import csv
import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from ignite.engine import Engine, Events, State
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.networks.nets import UNETR, DynUNet, SegResNet
from monai.optimizers import Novograd
from torch import nn

from metaseg_monai.errors import ConfigError, DataError, TrainingError
from metaseg_monai.training import (
    ClipGradients,
    EpochLog,
    PixelF1,
    RunProgress,
    StopOnNonFinite,
    TryBatches,
    collate_cases,
    handlers,
    higher_is_better,
    lower_is_better,
    processes,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("current", "best", "lower", "higher"),
    [
        (1.0, 2.0, True, False),
        (2.0, 1.0, False, True),
        (1.0, 1.0, False, False),
        (NAN, 1.0, False, False),
        (1.0, NAN, True, True),
        (NAN, NAN, False, False),
        (-INF, 1.0, True, False),
    ],
)
def test_nan_is_never_better(current, best, lower, higher):
    assert lower_is_better(current, best) is lower
    assert higher_is_better(current, best) is higher


# Stopping


def loader(image_values, count=4, size=(4, 4)):
    items = [
        {
            "case": f"case {i}",
            "image": torch.full((1, *size), image_values.get(i, 0.5)),
            "label": torch.zeros(1, *size),
        }
        for i in range(count)
    ]
    return torch.utils.data.DataLoader(items, batch_size=2, collate_fn=collate_cases)


class Network(nn.Conv2d):
    """Overflows at one of its calls."""

    def __init__(self, overflow_at=None):
        super().__init__(1, 1, 1)
        self.overflow_at = overflow_at
        self.calls = 0

    def forward(self, image, meta=None):
        self.calls += 1
        out = super().forward(image)
        return out * INF if self.calls == self.overflow_at else out


def train(network, data):
    SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=lambda pred, label: (pred - label).square().mean(),
        train_handlers=[StopOnNonFinite()],
    ).run()


@pytest.mark.parametrize(
    ("values", "overflow_at", "message"),
    [
        ({3: NAN}, None, r"epoch 1, iteration 2.*case 2, case 3.*image of case 3"),
        ({3: INF}, None, r"epoch 1, iteration 2.*case 2, case 3.*image of case 3"),
        ({}, 3, r"epoch 2, iteration 3.*case 0, case 1.*learning rate"),
    ],
)
def test_a_loss_that_is_not_finite_stops_training_with_weights_intact(values, overflow_at, message):
    network = Network(overflow_at)
    with pytest.raises(TrainingError, match=message):
        train(network, loader(values))
    assert all(bool(torch.isfinite(weight).all()) for weight in network.parameters())


@pytest.mark.parametrize(("max_norm", "steps"), [(0.5, True), (1e6, False), (None, False)])
def test_gradients_are_scaled_down_to_a_norm_before_the_step(max_norm, steps):
    network = Network()
    nn.init.constant_(network.weight, 3.0)
    before = network.weight.item(), network.bias.item()
    SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        epoch_length=1,
        train_data_loader=loader({}),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda pred, label: 100 * (pred - label).square().mean(),
        train_handlers=[StopOnNonFinite(), ClipGradients(max_norm)],
    ).run()
    after = network.weight.item(), network.bias.item()
    moved = math.dist(before, after)
    assert moved == pytest.approx(0.5, rel=1e-4) if steps else moved > 100


def test_a_norm_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"max_norm=0: expected a norm above 0"):
        ClipGradients(0)


def test_finite_runs_are_left_alone():
    network = Network()
    train(network, loader({}))
    assert network.calls == 4


@pytest.mark.parametrize(
    ("values", "overflow_at", "message"),
    [
        ({1: NAN}, None, r"prediction for case 1 holds NaN.*its image too"),
        ({}, 2, r"prediction for case 2, case 3 holds NaN.*though the image is finite"),
    ],
)
def test_a_prediction_that_is_not_finite_stops_an_evaluation(values, overflow_at, message):
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=loader(values),
        network=Network(overflow_at),
        val_handlers=[StopOnNonFinite()],
    )
    with pytest.raises(TrainingError, match=message):
        evaluator.run()


def test_a_batch_without_names_is_counted_by_rows():
    engine = Engine(lambda engine, batch: None)
    images = torch.tensor([[1.0, 2.0], [INF, 0.0]])
    engine.state = State(output={"image": images, "loss": torch.tensor(NAN)}, batch=[], epoch=1)
    with pytest.raises(TrainingError, match="The image of row 1 of the batch"):
        StopOnNonFinite().check_loss(engine)


# The log


def logged(path, validated=(), **more):
    """An engine whose iterations have the losses of its data, and a log behind its validation."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    engine = Engine(lambda engine, batch: [{"loss": torch.tensor(batch)}] * 2)
    if validated:
        more["evaluator"] = evaluator = Engine(lambda engine, batch: None)
        evaluator.state = State(epoch=0, metrics={})

        def validation(engine):
            if engine.state.epoch in validated:
                evaluator.state.epoch = engine.state.epoch
                evaluator.state.metrics = {"val_loss": 10.0 * engine.state.epoch, "f1": 0.5}

        engine.add_event_handler(Events.EPOCH_COMPLETED, validation)
    EpochLog(path, optimizer, **more).attach(engine)
    return engine


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_per_epoch_holds_the_mean_loss(tmp_path, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(handlers, "monotonic", lambda: next(ticks))
    logged(tmp_path / "log.csv").run([1.0, 2.0, 6.0], max_epochs=2)
    expected = [
        {"epoch": str(epoch), "train_loss": "3.0", "lr": "0.5", "seconds": "1.000"}
        for epoch in (1, 2)
    ]
    assert rows(tmp_path / "log.csv") == expected


def test_metrics_are_written_where_the_validation_ran(tmp_path):
    engine = logged(tmp_path / "log.csv", validated=(2,), metrics=("val_loss", "f1"))
    engine.run([1.0], max_epochs=3)
    written = [(row["val_loss"], row["f1"]) for row in rows(tmp_path / "log.csv")]
    assert written == [("", ""), ("20.0", "0.5"), ("", "")]


def test_a_metric_that_is_not_computed_is_named(tmp_path):
    engine = logged(tmp_path / "log.csv", validated=(1,), metrics=("dice",))
    with pytest.raises(TrainingError, match=r"\['dice'\].*\['f1', 'val_loss'\]"):
        engine.run([1.0], max_epochs=1)


def test_a_new_run_starts_a_new_file_and_a_resumed_one_drops_later_rows(tmp_path):
    path = tmp_path / "log.csv"
    logged(path).run([1.0], max_epochs=3)
    engine = logged(path)
    engine.load_state_dict({"epoch": 1, "max_epochs": 2, "epoch_length": 1})
    engine.run([5.0])
    assert [(row["epoch"], row["train_loss"]) for row in rows(path)] == [("1", "1.0"), ("2", "5.0")]
    logged(path).run([7.0], max_epochs=1)
    assert [row["train_loss"] for row in rows(path)] == ["7.0"]


def test_a_resumed_log_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n1,2\n")
    engine = logged(path)
    engine.load_state_dict({"epoch": 1, "max_epochs": 2, "epoch_length": 1})
    with pytest.raises(DataError, match=r"log\.csv has the columns \['epoch', 'loss'\]"):
        engine.run([5.0])


@pytest.mark.parametrize(
    "output",
    [
        {"loss": torch.tensor(2.0, requires_grad=True)},
        [{"loss": 2.0}, {"loss": 2.0}],
        [{"loss": torch.tensor(2.0)}],
    ],
)
def test_the_loss_is_found_in_every_form_of_output(output):
    assert handlers.loss_of(output) == 2.0


# Progress


def shown(capsys, output=None, unit="step", evaluator=None, data=range(4), epochs=3, done=None):
    """The states of the bar of a run."""
    engine = Engine(lambda engine, batch: output)
    RunProgress("sme", evaluator=evaluator, unit=unit).attach(engine)
    if done is None:
        engine.run(data, max_epochs=epochs)
    else:
        length = len(data)
        state = {"iteration": done, "max_epochs": epochs, "epoch_length": length}
        engine.load_state_dict(state)
        engine.run(data)
    return capsys.readouterr().err


def test_one_bar_spans_the_run_with_the_last_losses(capsys):
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state = State(metrics={"val_loss": 0.75, "val_f1": 0.5, "other": 0.1})
    text = shown(capsys, {"loss": 0.25}, evaluator=evaluator)
    last = text.split("\r")[-1]
    assert last.startswith("sme: ")
    for part in ("12/12", "loss=0.2500", "val_loss=0.7500", "val_f1=0.5000"):
        assert part in last
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ([{"loss": 0.25}] * 2, "loss=0.2500"),
        ({"pred": 1}, ""),
        ([{"pred": 1}], ""),
        (None, ""),
    ],
)
def test_a_loss_is_shown_where_there_is_one(capsys, output, loss):
    last = shown(capsys, output, epochs=1).split("\r")[-1]
    assert "4/4" in last
    assert loss in last
    assert ("loss" in last) == bool(loss)


def test_a_resumed_run_begins_where_it_was(capsys):
    bars = shown(capsys, {"loss": 0.25}, done=6).split("\r")
    assert any("6/12" in bar for bar in bars)
    assert not any("0/12" in bar for bar in bars)
    assert "12/12" in bars[-1]


class Slices(list):
    """Batches of cases, and the dataset that they come from."""

    dataset = range(5)


@pytest.mark.parametrize("done", [None, 2])
def test_slices_are_counted_by_their_cases(capsys, done):
    data = Slices([{"case": ["a", "b", "c"]}, {"case": ["d", "e"]}])
    last = shown(capsys, unit="slice", data=data, epochs=2, done=done).split("\r")[-1]
    assert "10/10" in last
    assert "slice" in last


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_errors_and_ctrl_c_pass_through_and_end_the_line(capsys, error):
    def iteration(engine, batch):
        if engine.state.iteration == 3:
            raise error("stop")

    engine = Engine(iteration)
    RunProgress().attach(engine)
    with pytest.raises(error, match="stop"):
        engine.run(range(4), max_epochs=3)
    assert capsys.readouterr().err.endswith("\n")


def test_only_the_first_process_shows_it(capsys, monkeypatch):
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert shown(capsys) == ""


def steep_at(values, steep, epochs=1, optimizer=torch.optim.Adam):
    """Train on batches of which those with a negative image, if any, have gradients of 1e25."""
    torch.manual_seed(0)
    network = Network()
    optimizer = optimizer(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def loss(pred, label):
        is_steep = steep and float(engine.state.batch["image"].min()) < 0
        return (pred - label).square().mean() + (pred.mean() * 1e25 if is_steep else 0)

    engine = SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=loader(values, len(values)),
        network=network, optimizer=optimizer, loss_function=loss, decollate=False,
        train_handlers=[StopOnNonFinite(), LrScheduleHandler(schedule, epoch_level=False)],
    )  # fmt: skip
    return network, optimizer, engine


def test_an_epoch_of_gradients_that_no_optimiser_can_take_stops_a_run_with_weights_intact():
    network, _, engine = steep_at(dict.fromkeys(range(4), -0.5), steep=True)
    before = [one.detach().clone() for one in network.parameters()]
    with pytest.raises(TrainingError, match=r"gradients of every batch \(case 2, case 3\)"):
        engine.run()
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, Novograd])
def test_a_step_whose_gradients_are_beyond_all_numbers_is_left_out(kind, caplog):
    values = {0: 0.5, 1: 0.3, 2: -0.5, 3: 0.2, 4: 0.4, 5: 0.1}
    network, optimizer, engine = steep_at(values, steep=True, epochs=2, optimizer=kind)
    engine.run()
    assert engine.state.iteration == 6
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**6
    told = [one.getMessage() for one in caplog.records if "left out" in one.getMessage()]
    assert len(told) == 2
    assert "epoch 1: 1 of 3 steps" in told[0]
    assert "(case 2, case 3)" in told[1]
    other, optimizer, _ = steep_at(values, steep=False, optimizer=kind)
    for batch in [*loader(values, 6), *loader(values, 6)]:
        if float(batch["image"].min()) > 0:
            optimizer.zero_grad()
            (other(batch["image"]) - batch["label"]).square().mean().backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5
    weights = zip(network.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in weights)


def test_a_scaler_finds_its_scale_by_gradients_beyond_all_numbers():
    class Scaled(nn.Module):
        def forward(self, pred, label):
            return (pred * 1e30).sum() * 0 + (pred * 1e25).mean()

    network = Network()
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader({}), network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0), loss_function=Scaled(),
        train_handlers=[StopOnNonFinite()], decollate=False,
    )  # fmt: skip
    enabled = [True]

    def scale():
        engine.scaler = SimpleNamespace(is_enabled=lambda: enabled[0])

    engine.add_event_handler(Events.STARTED, scale)
    engine.run()
    enabled[0] = False
    with pytest.raises(TrainingError, match="gradients of every batch"):
        engine.run()


def test_trying_a_batch_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    network[1].eval()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader({}, count=5), network=network,
        optimizer=torch.optim.Adam(network.parameters()),
        loss_function=lambda pred, label: (pred - label).square().mean(), decollate=False,
    )  # fmt: skip
    heard = []  # as DistributedDataParallel hears of gradients
    for weight in network.parameters():
        weight.register_post_accumulate_grad_hook(heard.append)
    torch.manual_seed(3)
    TryBatches()(engine)
    assert heard == []
    assert torch.equal(torch.rand(1), expected)
    assert [one.training for one in network] == [True, False, True]
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())


def test_a_network_that_cannot_take_the_images_is_refused_with_both_named():
    network = nn.Conv2d(3, 1, 1)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader({}), network=network,
        optimizer=torch.optim.Adam(network.parameters()),
        loss_function=lambda pred, label: (pred - label).square().mean(), decollate=False,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"of 1 channel.*to have 3 channels.*in_channels"):
        TryBatches()(engine)


SIX_LEVELS = DynUNet(
    2, 1, 1, kernel_size=[3] * 7, strides=[1] + [2] * 6, upsample_kernel_size=[2] * 6,
    filters=[2] * 7,
)  # fmt: skip
WINDOW = (32, 32)


@pytest.mark.parametrize(
    ("network", "size", "told"),
    [
        (SIX_LEVELS, (64, 64), r"64x64: it halves them 6 times, .*one pixel.*\[128, 128\]"),
        (SIX_LEVELS, (96, 64), r"96x64: .*not divide evenly.*\[128, 64\].* multiples of 64x64$"),
        (
            SegResNet(2, 8, out_channels=1),
            (20, 24),
            r"halves them 3 times, .*not divide.*\[24, 24\]",
        ),
        (UNETR(1, 1, WINDOW, 4, 24, 24, 2, spatial_dims=2), (20, 20), "a size that it takes"),
    ],
)
def test_a_crop_that_the_network_cannot_halve_is_refused_with_one_that_it_can(network, size, told):
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader({}, size=size), network=network,
        optimizer=torch.optim.Adam(network.parameters()),
        loss_function=lambda pred, label: (pred - label).square().mean(), decollate=False,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=f"^roi_size: the network .*{told}") as raised:
        TryBatches()(engine)
    assert "\n" not in str(raised.value)


def test_what_a_loss_says_of_sizes_is_no_word_on_the_crop():
    network = nn.Conv2d(1, 1, 3)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader({}), network=network,
        optimizer=torch.optim.Adam(network.parameters()),
        loss_function=lambda pred, label: (pred - label).square().mean(), decollate=False,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="must match the size of tensor"):
        TryBatches()(engine)


@pytest.mark.parametrize(
    ("steep", "refused"), [((0, 1), None), (range(6), "gradients of 4 batches")]
)
def test_a_first_batch_of_constant_crops_does_not_refuse_a_training(steep, refused):
    network, _, engine = steep_at({i: -0.5 if i in steep else 0.5 for i in range(6)}, steep=True)
    engine.state.batch = None
    collate = engine.data_loader.collate_fn

    def noted(items):
        engine.state.batch = collate(items)
        return engine.state.batch

    engine.data_loader.collate_fn = noted
    with nullcontext() if refused is None else pytest.raises(TrainingError, match=refused):
        TryBatches()(engine)
    assert all(one.grad is None for one in network.parameters())


def test_of_the_validation_one_batch_of_each_combination_of_sizes_is_read(tmp_path):
    network = nn.Conv2d(1, 1, 1)
    items = []
    for number, size in enumerate([8, 8, 8, 8, 9, 9, 8, 8, 8, 9]):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.zeros((size, 8), np.uint8))
        items.append({"image": str(tmp_path / f"{number}.tif"), "case": str(number)})
    read = []

    def load(item):
        read.append(int(item["case"]))
        return {**item, "image": torch.from_numpy(tifffile.imread(item["image"])[None] / 255)}

    loaded = DataLoader(Dataset(items, load), batch_size=2, collate_fn=collate_cases)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=loader({}), network=network,
        optimizer=torch.optim.Adam(network.parameters()),
        loss_function=lambda pred, label: (pred - label).square().mean(), decollate=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="differ in the shape of 'image'"):
        TryBatches(SimpleNamespace(data_loader=loaded))(engine)
    assert read == [0, 1, 4, 5, 8, 9]


@pytest.mark.parametrize("several", [False, True], ids=["one output", "several scales"])
def test_the_f1_of_validation_is_that_of_all_pixels_and_the_mean_of_classes(several):
    """Also with an image without foreground, pixels without annotation, and a class never seen."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (4, 1, 6, 5), generator=generator)
    pred = torch.randint(0, 3, (4, 6, 5), generator=generator)
    label[2], pred[2] = 0, 0
    logits = torch.nn.functional.one_hot(pred, 4).movedim(-1, 1).float()
    label[0, 0, 0] = 255  # not annotated
    metric = PixelF1(4, lambda output: output)
    for place in range(0, 4, 2):
        of = logits[place : place + 2]
        metric.update(
            ([of, of[..., ::2, ::2]] if several else of, label[place : place + 2].float())
        )
    known, wanted = label[:, 0] < 4, []
    for number in (1, 2):
        found, true = (pred == number) & known, (label[:, 0] == number) & known
        wanted.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert metric.compute() == pytest.approx(float(sum(wanted) / 2))
    metric.reset()
    assert math.isnan(metric.compute())
