import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from metaseg_monai.errors import ConfigError, TrainingError
from metaseg_monai.training import StepOnPlateau, cyclic_schedule, warm_restarts


def make(iterations, cycles=8, base=2e-4, top=8e-4, **more):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return optimizer, cyclic_schedule(optimizer, base, top, cycles, iterations, **more)


def rates(iterations, **more):
    """The rate of each iteration, and the one after the last."""
    optimizer, schedule = make(iterations, **more)
    values = [optimizer.param_groups[0]["lr"]]
    for _ in range(iterations):
        optimizer.step()
        schedule.step()
        values.append(optimizer.param_groups[0]["lr"])
    return values


def test_eight_cycles_of_the_paper_by_hand():
    """Paper 2.2: 2e-4 to 8e-4, 8 cycles; here 8 iterations a cycle, so 1.5e-4 a step."""
    cycle = [2e-4, 3.5e-4, 5e-4, 6.5e-4, 8e-4, 6.5e-4, 5e-4, 3.5e-4]
    assert rates(64) == pytest.approx([*cycle * 8, 2e-4])


def test_height_halves_with_decay():
    values = rates(16, cycles=4, base=1.0, top=9.0, decay=True)
    assert values == pytest.approx([1, 5, 9, 5, 1, 3, 5, 3, 1, 2, 3, 2, 1, 1.5, 2, 1.5, 1])


@pytest.mark.parametrize("iterations", [16, 17, 99, 1000, 1001, 1237])
@pytest.mark.parametrize("decay", [False, True])
def test_the_last_iteration_ends_the_last_cycle(iterations, decay):
    values = rates(iterations, decay=decay)
    assert values[0] == pytest.approx(2e-4)
    assert values[-1] == pytest.approx(2e-4)
    assert min(values) >= 2e-4 * (1 - 1e-9)
    assert max(values) <= 8e-4 * (1 + 1e-9)
    peaks = [
        place
        for place in range(1, iterations)
        if values[place - 1] < values[place] >= values[place + 1] and values[place] > 2.01e-4
    ]
    assert len(peaks) == 8 or iterations == 17


def test_odd_iterations_follow_the_triangle_exactly():
    """7 iterations, 2 cycles: a cycle is 3.5 iterations; the values of the triangle at i / 3.5."""
    expected = [0, 2 / 3.5, 2 - 4 / 3.5, 2 - 6 / 3.5, 1 / 3.5, 3 / 3.5, 2 - 5 / 3.5, 0]
    assert rates(7, cycles=2, base=1.0, top=2.0) == pytest.approx([1 + h for h in expected])


def test_monais_handler_steps_it_per_iteration_and_leaves_betas_alone():
    optimizer, schedule = make(8, cycles=1, base=1.0, top=5.0)
    seen = []

    def iteration(engine, batch):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    engine = Engine(iteration)
    LrScheduleHandler(schedule, print_lr=False, epoch_level=False).attach(engine)
    engine.run(range(4), max_epochs=2)
    assert seen == pytest.approx([1, 2, 3, 4, 5, 4, 3, 2])
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 15}, "do not fit"),
        ({"iterations": 64, "cycles": 0}, "cycles"),
        ({"iterations": 64, "base": 0.0}, "base_lr"),
        ({"iterations": 64, "base": 1.0}, "base_lr"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


def test_the_rate_is_halved_where_the_validation_stands_still():
    """The thesis' pilot (3.3): half, where the loss has not fallen for more than five epochs."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    losses = iter([1.0, *[0.9] * 8, 0.5])
    evaluator = Engine(lambda engine, batch: None)
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(val_loss=next(losses))
    )
    trainer = Engine(lambda engine, batch: evaluator.run([0]))
    handler = StepOnPlateau(schedule, evaluator)
    for _ in range(2):
        handler.attach(trainer)
    rates = []
    for _ in range(10):
        trainer.run([0])
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.01] * 7 + [0.005] * 3


def test_a_metric_that_there_is_not_is_named():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    evaluator = Engine(lambda engine, batch: None)
    StepOnPlateau(schedule, evaluator, metric="val_dice").attach(Engine(lambda *_: None))
    with pytest.raises(TrainingError, match=r"'val_dice', which the validation does not compute"):
        evaluator.run([0])


def test_warm_restarts_are_those_of_pytorch_with_a_low_rate_behind():
    def optimizer():
        return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)

    own, theirs, length = optimizer(), optimizer(), 3
    schedule = warm_restarts(own, epochs=18, epoch_length=length)  # the last cosine is cut off
    reference = CosineAnnealingWarmRestarts(theirs, T_0=2, T_mult=2)
    for step in range(18 * length):
        reference.step(step / length)
        expected = theirs.param_groups[0]["lr"] if step < 8 * length else 1e-5
        assert own.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), step
        own.step()
        schedule.step()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 10}, "last_epochs=10 of 10"),
        ({"first": 0}, "first must be a whole number from 1, got 0"),
        ({"last_lr": 0}, "a last_lr above 0"),
    ],
)
def test_warm_restarts_that_cannot_be_are_refused(changed, message):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    with pytest.raises(ConfigError, match=message):
        warm_restarts(optimizer, **{"epochs": 20, "epoch_length": 1, **changed})
