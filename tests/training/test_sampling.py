from collections import Counter
from itertools import pairwise

import pytest
import torch
from monai.transforms import RandGaussianNoised

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.training import (
    EpochDraw,
    ReplayDataset,
    processes,
    training_loader,
)
from metaseg_monai.training.sampling import Deck, seed_for

TASKS = ["nucleus"] * 17 + ["cytoplasm"] * 3
LINES = (["A"] * 5 + ["B"] * 12) + ["B", "B", "A"]


def items_of(tasks, lines=LINES):
    return [
        {"case": f"c{number}", "metadata": {"task": task, "line": line}}
        for number, (task, line) in enumerate(zip(tasks, lines, strict=False))
    ]


def loader(batch=4, tasks=TASKS, **fields):
    dataset = ReplayDataset(items_of(tasks))
    return training_loader(dataset, batch, 3, draw=EpochDraw(**fields) if fields else None)


def epochs(count, **settings):
    """Item numbers of each batch of each epoch."""
    sampler = loader(**settings).batch_sampler
    return [[[key[1] for key in batch] for batch in sampler] for _ in range(count)]


def shares(world, count, **settings):
    """The epochs of each process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "world_size", lambda: world)
        found = []
        for rank in range(world):
            patch.setattr(processes, "rank", lambda rank=rank: rank)
            found.append(epochs(count, **settings))
    return found


def test_seeds_differ_where_their_numbers_do():
    numbers = [(0,), (0, 0), (0, 0, 0), (1, 2), (2, 1), (1, 2, 0), (5, 1, 2), (5, 2, 1)]
    seeds = {seed_for(*each) for each in numbers}
    assert len(seeds) == len(numbers)
    assert all(0 <= seed < 2**32 for seed in seeds)


def flat(batches):
    return [index for batch in batches for index in batch]


def spread(numbers):
    return max(numbers) - min(numbers)


def test_values_are_drawn_equally_often_in_as_many_steps():
    plain, balanced = epochs(3), epochs(3, balance="task")
    assert [list(map(len, e)) for e in balanced] == [list(map(len, e)) for e in plain]
    for epoch in balanced:
        assert Counter(TASKS[i] for i in flat(epoch)) == {"nucleus": 10, "cytoplasm": 10}
    assert len({tuple(flat(epoch)) for epoch in balanced}) == 3


def test_where_values_do_not_divide_an_epoch_they_take_turns():
    tasks = ["a"] * 6 + ["b"] * 3 + ["c"] * 2  # of 11 items two values have 4 and one 3
    counts = [Counter(tasks[i] for i in flat(e)) for e in epochs(6, balance="task", tasks=tasks)]
    assert all(sorted(count.values()) == [3, 4, 4] for count in counts)
    assert sum(counts, Counter()) == {"a": 22, "b": 22, "c": 22}


def test_no_item_comes_again_before_the_others_of_its_value():
    seen = Counter()
    for number, epoch in enumerate(epochs(7, balance="task"), start=1):
        seen.update(flat(epoch))
        for task in ("nucleus", "cytoplasm"):
            assert spread([seen[i] for i, own in enumerate(TASKS) if own == task]) <= 1
        assert number < 2 or set(seen) == set(range(20))  # 17 of 10 an epoch are seen in two


def test_a_deck_is_shuffled_anew_each_time():
    deck = Deck(range(9), seed=0, number=0)
    rounds = [tuple(deck.take(9 * number, 9).tolist()) for number in range(5)]
    assert all(sorted(one) == list(range(9)) for one in rounds)
    assert len(set(rounds)) == 5
    assert deck.take(7, 15).tolist() == [*rounds[0][7:], *rounds[1], *rounds[2][:4]]
    other = Deck(range(9), seed=0, number=1)
    assert tuple(other.take(0, 9).tolist()) != rounds[0]


def test_values_do_not_come_in_turns():
    orders = [[TASKS[i] for i in flat(epoch)] for epoch in epochs(3, balance="task")]
    assert all(any(one == other for one, other in pairwise(order)) for order in orders)


@pytest.mark.parametrize("balance", [None, "task"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_over_all_processes_has_one_value(balance, world):
    found = shares(world, 5, balance=balance, homogeneous="task", batch=2)
    for of_processes in zip(*found, strict=True):
        assert {len(batches) for batches in of_processes} == {10 // world}
        for batches in zip(*of_processes, strict=True):
            assert [len(batch) for batch in batches] == [2] * world
            assert len({TASKS[i] for i in flat(batches)}) == 1


def test_homogeneous_values_have_batches_as_they_have_items_or_equally_many():
    def batches_of(**settings):
        drawn = [b for e in epochs(20, homogeneous="task", **settings) for b in e]
        return Counter(TASKS[batch[0]] for batch in drawn), Counter(flat(drawn))

    counts, seen = batches_of()
    assert counts == {"nucleus": 85, "cytoplasm": 15}
    assert set(seen.values()) == {20}  # every item once an epoch, on average
    assert batches_of(balance="task")[0] == {"nucleus": 50, "cytoplasm": 50}


def test_homogeneous_batches_come_in_a_drawn_order():
    firsts = [[TASKS[b[0]] for b in e] for e in epochs(8, homogeneous="task", balance="task")]
    assert len({tuple(tasks) for tasks in firsts}) > 2


def test_another_field_is_balanced_within_the_batches_of_each_value():
    seen = {"nucleus": Counter(), "cytoplasm": Counter()}
    for batch in [b for e in epochs(20, homogeneous="task", balance="line") for b in e]:
        assert len({TASKS[i] for i in batch}) == 1
        assert Counter(LINES[i] for i in batch) == {"A": 2, "B": 2}
        seen[TASKS[batch[0]]].update(batch)
    assert [sum(count.values()) // 4 for count in seen.values()] == [85, 15]
    assert seen["cytoplasm"][19] == 30  # the only one of line A, in every batch twice


def test_any_epoch_is_drawn_without_those_before_it():
    for settings in ({"balance": "task"}, {"balance": "line", "homogeneous": "task"}):
        whole = epochs(9, **settings)
        sampler = loader(**settings).batch_sampler
        sampler.begin_epoch(8, skip=2)
        assert [[i for _, i, *_ in batch] for batch in sampler] == whole[7][2:]
        assert {epoch for batch in sampler for epoch, *_ in batch} == {9}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("fields", [{"balance": "task"}, {"homogeneous": "task"}])
def test_processes_have_equal_numbers_of_batches(world, fields):
    plain = shares(world, 1, batch=3)
    found = shares(world, 2, batch=3, **fields)
    assert {len(epoch) for share in found for epoch in share} == {len(plain[0][0])}
    assert len({tuple(map(len, epoch)) for share in found for epoch in share}) == 1
    if "balance" in fields:
        for of_processes in zip(*found, strict=True):
            counts = Counter(TASKS[i] for batches in of_processes for i in flat(batches))
            assert spread(counts.values()) <= 1


def test_another_seed_is_another_order():
    draw = EpochDraw("task")
    orders = [draw.order(items_of(TASKS), seed).epoch(1, 5, 4, 20) for seed in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


def test_one_value_alone_is_every_item_once():
    (epoch,) = epochs(1, balance="task", tasks=["a"] * 7)
    assert sorted(flat(epoch)) == list(range(7))


@pytest.mark.parametrize("setting", ["balance", "homogeneous"])
def test_a_field_that_cannot_be_used_is_refused(setting):
    with pytest.raises(ConfigError, match=f"{setting}='stain' is no metadata field.* line, task"):
        loader(**{setting: "stain"})
    for nothing in (None, " "):
        with pytest.raises(DataError, match=f"Case c1 has no value of 'task', which {setting}"):
            loader(tasks=["a", nothing, "a"], **{setting: "task"})
    with pytest.raises(ConfigError, match="every one of the 3 training cases has a value of its"):
        loader(tasks=["a", "b", "c"], **{setting: "task"})
    draw = EpochDraw(**{setting: "task"})
    with pytest.raises(ConfigError, match="whose items hold their metadata"):
        training_loader(ReplayDataset([{"case": "a"}]), 1, 0, draw=draw)
    with pytest.raises(ConfigError, match="seed"):
        training_loader(ReplayDataset(items_of(TASKS)), 1, -1, draw=draw)
    with pytest.raises(ConfigError, match="needs a field"):
        training_loader(ReplayDataset(items_of(TASKS)), 1, 0, draw=EpochDraw())


def test_a_share_of_planes_is_drawn_from_those_with_foreground():
    planes = [{"foreground": n in (3, 7)} for n in range(40)]
    order = EpochDraw(foreground=1 / 3).order(planes, 0)
    drawn = [item for epoch in range(1, 31) for item in order.epoch(epoch, 10, 4, 40)]
    counts = Counter(drawn)
    assert len(counts) == 40
    share = sum(counts[n] for n in (3, 7)) / len(drawn)
    assert share == pytest.approx(1 / 3 + 2 / 3 * 2 / 40, abs=0.005)
    for settings, items, kind in (
        ({"foreground": 1.0}, planes, ConfigError),
        ({"foreground": 0.3, "balance": "task"}, planes, ConfigError),
        ({"foreground": 0.3}, [{}], ConfigError),
        ({"foreground": 0.3}, planes[:2], DataError),
    ):
        with pytest.raises(kind):
            EpochDraw(**settings).order(items, 0)


def test_an_item_that_comes_again_in_an_epoch_is_changed_otherwise():
    noise = RandGaussianNoised("image", prob=1.0)
    items = [{"image": torch.zeros(1, 4, 4), "foreground": n == 0, "case": str(n)} for n in (0, 1)]
    dataset = ReplayDataset(items * 3, augment=[noise])
    made = training_loader(dataset, 6, 0, draw=EpochDraw(foreground=0.5))
    keys = [key for batch in made.batch_sampler for key in batch]
    again = [key for key in keys if len(key) == 3]
    assert again
    assert len(set(keys)) == len(keys)
    first, other = (dataset[key]["image"] for key in (again[0][:2], again[0]))
    assert not torch.equal(first, other)
    assert torch.equal(other, dataset[again[0]]["image"])
