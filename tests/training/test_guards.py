import math

import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from metaseg_monai.errors import TrainingError
from metaseg_monai.training import StopOnNonFinite, collate_cases, higher_is_better, lower_is_better
from metaseg_monai.training.handlers import _rows_not_finite

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


def loader(image_values, count=4):
    items = [
        {
            "case": f"case {i}",
            "image": torch.full((1, 4, 4), image_values.get(i, 0.5)),
            "label": torch.zeros(1, 4, 4),
        }
        for i in range(count)
    ]
    return torch.utils.data.DataLoader(items, batch_size=2, collate_fn=collate_cases)


class Network(nn.Conv2d):
    def __init__(self):
        super().__init__(1, 1, 1)
        self.overflow_at = None
        self.calls = 0

    def forward(self, image, meta=None):
        self.calls += 1
        out = super().forward(image)
        return out * INF if self.calls == self.overflow_at else out


def trainer(network, data):
    return SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=lambda pred, label: (pred - label).square().mean(),
        train_handlers=[StopOnNonFinite()],
    )


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_voxel_that_is_not_finite_stops_training_with_its_case(value):
    network = Network()
    with pytest.raises(
        TrainingError, match=r"epoch 1, iteration 2.*case 2, case 3.*image of case 3"
    ):
        trainer(network, loader({3: value})).run()
    assert all(bool(torch.isfinite(weight).all()) for weight in network.parameters())


def test_a_network_that_overflows_stops_training_with_weights_intact():
    network = Network()
    network.overflow_at = 3
    with pytest.raises(TrainingError, match=r"epoch 2, iteration 3.*case 0, case 1.*learning rate"):
        trainer(network, loader({})).run()
    assert all(bool(torch.isfinite(weight).all()) for weight in network.parameters())


def test_finite_runs_are_left_alone():
    network = Network()
    trainer(network, loader({})).run()
    assert network.calls == 4


@pytest.mark.parametrize(
    ("values", "overflow_at", "message"),
    [
        ({1: NAN}, None, r"prediction for case 1 holds NaN.*its image too"),
        ({}, 2, r"prediction for case 2, case 3 holds NaN.*though the image is finite"),
    ],
)
def test_a_prediction_that_is_not_finite_stops_an_evaluation(values, overflow_at, message):
    network = Network()
    network.overflow_at = overflow_at
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=loader(values),
        network=network,
        val_handlers=[StopOnNonFinite()],
    )
    with pytest.raises(TrainingError, match=message):
        evaluator.run()


def test_rows_of_any_number_of_axes():
    assert _rows_not_finite(torch.tensor([1.0, float("nan"), 2.0])) == [1]
    assert _rows_not_finite(torch.tensor([[1.0, 2.0], [float("inf"), 0.0]])) == [1]
