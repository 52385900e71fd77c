"""Cases are seen in the same order and with the same draws, however often a run is resumed."""

import gc
import random
import threading
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from monai.data import get_track_meta
from monai.transforms import (
    ClassesToIndicesd,
    Compose,
    EnsureTyped,
    Identityd,
    Lambdad,
    MapTransform,
    OneOf,
    RandCropByLabelClassesd,
    RandFlipd,
    RandGaussianNoised,
    RandSpatialCropd,
)
from torch.utils.data import Dataset

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.training import ReadAhead, ReplayDataset, loader, processes, training_loader
from metaseg_monai.training.loader import EpochBatchSampler


def draws():
    """One draw of each global generator of the CPU."""
    return random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist()  # noqa: NPY002


def seen(batches):
    return [index for batch in batches for _, index, *_ in batch]


def test_planes_of_a_volume_are_read_together_in_whatever_order_they_are_drawn():
    data = [{"image": name, "plane": plane} for name in "abc" for plane in range(4)]
    data += [{"image": "d"}]
    files, last = [], [None]

    def read(item):
        if item["image"] != last[0]:
            files.append(item["image"])
        last[0] = item["image"]
        return {**item, "image": torch.zeros(1, 2, 2)}

    dataset = ReplayDataset(data, read)
    for index in (5, 12, 1, 9, 4, 0, 11, 12):
        dataset[1, index]
    assert files == ["b", "d", "a", "c"]
    files.clear()
    plain = ReplayDataset(data, read, cache=False)
    for index in (5, 1, 6):
        plain[1, index]
    assert files == ["b", "a", "b"]


# The order


def test_each_epoch_holds_every_item_once_in_its_own_order():
    sampler = EpochBatchSampler(23, 4, seed=0)
    epochs = [list(sampler) for _ in range(3)]
    assert all(sorted(seen(epoch)) == list(range(23)) for epoch in epochs)
    assert [len(batch) for batch in epochs[0]] == [4, 4, 4, 4, 4, 3]
    assert len({tuple(seen(epoch)) for epoch in epochs}) == 3
    assert [{epoch for batch in one for epoch, _ in batch} for one in epochs] == [{1}, {2}, {3}]
    assert epochs[0] == list(EpochBatchSampler(23, 4, seed=0))
    assert epochs[0] != list(EpochBatchSampler(23, 4, seed=1))


def test_an_epoch_can_be_begun_in_its_middle():
    sampler = EpochBatchSampler(23, 4, seed=0)
    epochs = [list(sampler) for _ in range(3)]
    sampler.begin_epoch(2, skip=3)
    assert list(sampler) == epochs[1][3:]
    assert list(sampler) == epochs[2]
    assert len(sampler) == 6


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_an_epoch(monkeypatch, length, world_size):
    shares = []
    monkeypatch.setattr(processes, "world_size", lambda: world_size)
    for rank in range(world_size):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        sampler = EpochBatchSampler(length, 2, seed=0)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler)
    assert len({tuple(map(len, share)) for share in shares}) == 1
    together = [index for share in shares for index in seen(share)]
    assert set(together) == set(range(length))
    assert len(together) < length + world_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0, "batch_size": 2, "seed": 0}, "at least one item"),
        ({"length": 3, "batch_size": 0, "seed": 0}, "batch_size=0"),
        ({"length": 3, "batch_size": 1, "seed": -1}, "seed"),
    ],
)
def test_impossible_samplers_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        EpochBatchSampler(**arguments)


# The items


def make_items(count=5):
    draw = np.random.default_rng(0)
    return [
        {"case": f"c{i}", "image": draw.normal(size=(1, 4, 4)).astype(np.float32)}
        for i in range(count)
    ]


def add_global_draws(image):
    return image + random.random() + np.random.rand() + torch.rand(1)  # noqa: NPY002


def replayed(seed=0):
    augment = [
        RandFlipd("image", prob=0.5),
        Compose([RandGaussianNoised("image", prob=0.9)]),
        Lambdad("image", add_global_draws),
    ]
    return ReplayDataset(make_items(), [EnsureTyped("image")], augment, seed=seed)


def images(dataset, *keys):
    return [torch.as_tensor(dataset[key]["image"]) for key in keys]


def test_draws_are_replayed_by_seed_epoch_and_index():
    keys = [(1, 0), (1, 1), (2, 0), 3]
    first, again = images(replayed(), *keys), images(replayed(), *keys[::-1])[::-1]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(*images(replayed(), (2, 0), (3, 0)))
    assert not torch.equal(images(replayed(seed=1), (1, 0))[0], first[0])


def test_a_plain_index_is_epoch_0():
    dataset = replayed()
    assert torch.equal(*images(dataset, 2, (0, 2)))
    assert torch.equal(*images(dataset, -1, 4))
    with pytest.raises(IndexError, match="5 of 5"):
        dataset[5]
    assert len(dataset) == 5


def test_reading_an_item_leaves_the_global_generators_alone():
    dataset = replayed()

    def read():
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        draws()  # an odd number of normal draws leaves half a pair behind, which is state too
        dataset[1]
        return draws()

    first = read()
    dataset.augment = None
    assert read() == first


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("load", [None, EnsureTyped("image")])
def test_augmenting_in_place_never_reaches_the_items(cache, load):
    def spoil(item):
        item["image"] += 1
        item["case"] = "spoilt"
        return item

    items = make_items()
    before = [item["image"].copy() for item in items]
    dataset = ReplayDataset(items, load, spoil, cache=cache)
    for _ in range(3):
        np.testing.assert_array_equal(np.asarray(dataset[0]["image"]), before[0] + 1)
    np.testing.assert_array_equal(items[0]["image"], before[0])
    assert items[0]["case"] == "c0"


@pytest.mark.parametrize(("cache", "calls"), [(False, 3), (True, 1)])
def test_cache_loads_once(cache, calls):
    loaded = []

    def load(item):
        loaded.append(item["case"])
        return item

    dataset = ReplayDataset(make_items(), load, cache=cache)
    for epoch in range(3):
        dataset[epoch, 1]
    assert loaded == ["c1"] * calls


@pytest.mark.parametrize(
    "load",
    [
        [EnsureTyped("image"), RandFlipd("image")],
        Compose([Compose([RandFlipd("image")])]),
        OneOf([EnsureTyped("image")]),
    ],
)
def test_random_transforms_in_the_fixed_chain_are_refused(load):
    with pytest.raises(ConfigError, match=r"(RandFlipd|OneOf).*Move them to `augment`"):
        ReplayDataset(make_items(), load)


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_same_batches_with_any_workers(workers):
    def epochs(count):
        loader = training_loader(replayed(), 2, seed=0, num_workers=count)
        return [(b["case"], torch.as_tensor(b["image"])) for _ in range(2) for b in loader]

    state = torch.get_rng_state()
    first, other = epochs(0), epochs(workers)
    assert torch.equal(torch.get_rng_state(), state)
    assert [case for case, _ in first] == [case for case, _ in other]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, other, strict=True))


def volume(case, share):
    label = torch.zeros(1, 24, 24)
    label[:, : int(24 * share)] = 1
    return {"case": case, "image": label + torch.arange(24.0), "label": label, "meta": np.ones(2)}


class InPlace(MapTransform):
    """What changes its input, as MONAI's do not."""

    def __call__(self, data):
        for key in self.keys:
            data[key] += 1
        return data


def test_a_crop_that_comes_first_is_copied_alone_and_gives_what_it_gave():
    crop = RandSpatialCropd(["image", "label"], [8, 8], random_size=False)
    noise = RandGaussianNoised("image", prob=0.9)
    items = [volume("a", 0.5), volume("b", 0.1)]
    first = ReplayDataset(items, augment=[crop, noise, InPlace(["image"])])
    behind = ReplayDataset(items, augment=[Identityd(["image"]), crop, noise, InPlace(["image"])])
    for key in ((1, 0), (1, 1), (2, 0), (1, 0)):
        one, other = first[key], behind[key]
        assert torch.equal(one["image"], first[key]["image"])
        assert one["image"].shape == (1, 8, 8)
        assert torch.equal(one["image"], other["image"])
        assert one["image"].untyped_storage().nbytes() == 8 * 8 * 4
    assert torch.equal(first.load(0)["image"], items[0]["image"])
    assert torch.equal(items[0]["image"], volume("a", 0.5)["image"])


def test_crops_around_classes_find_them_by_the_places_of_the_fixed_chain():
    crop = RandCropByLabelClassesd(
        ["image", "label"],
        "label",
        [4, 4],
        ratios=[0.001, 1],
        num_classes=2,
        indices_key="label_cls_indices",
        warn=False,
    )
    places = ClassesToIndicesd("label", num_classes=2, max_samples_per_class=20)
    items = [volume("a", 0.1), volume("b", 0.1), volume("none", 0)]
    dataset = ReplayDataset(items, [places], [crop, RandFlipd(["image", "label"], prob=0.5)])
    loader = training_loader(dataset, batch_size=3, seed=0)
    batch = next(iter(loader))
    assert batch["image"].shape == (3, 1, 4, 4)
    assert set(batch) == {"case", "image", "label", "meta"}
    found = dict(zip(batch["case"], batch["label"].flatten(1).sum(1).tolist(), strict=True))
    assert found["a"] > 0
    assert found["b"] > 0
    assert found["none"] == 0
    again = next(iter(training_loader(dataset, batch_size=3, seed=0)))
    assert torch.equal(batch["image"], again["image"])


def test_history_is_not_kept_in_the_random_chain_and_is_kept_again_behind_it():
    def fail(image):
        assert not get_track_meta()
        if image.max() > 30:
            raise ValueError("too bright")
        return image

    image = np.zeros((1, 4, 4), dtype=np.float32)
    dataset = ReplayDataset(
        [{"image": image}, {"image": image + 40}], augment=[Lambdad("image", fail)]
    )
    assert dataset[0]["image"].shape == (1, 4, 4)
    assert get_track_meta()
    with pytest.raises(RuntimeError, match="applying transform"):
        dataset[1]
    assert get_track_meta()


# Reading ahead


class Noted(Dataset):
    """Items that note in which order, and in which threads, they were read."""

    def __init__(self, count):
        self.count, self.begun, self.threads = count, [], set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.begun.append(index)
        self.threads.add(threading.current_thread())
        if index == self.count - 1 and self.count > 3:
            raise DataError("the last one is damaged")
        return {"image": torch.full((1,), float(index)), "case": str(index)}


class AtOnce:
    """A pool that does what it is asked before it answers, so that nothing hangs on speed."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done


def test_one_batch_is_read_ahead_and_no_more(monkeypatch):
    monkeypatch.setattr(loader, "ThreadPoolExecutor", AtOnce)
    items = Noted(3)
    batches = iter(ReadAhead(items, batch_size=1))
    for index in range(3):
        assert next(batches)["case"] == [str(index)]
        assert items.begun == [0, 1, 2][: index + 2]
    assert next(batches, None) is None


def test_none_is_read_behind_a_large_batch(monkeypatch):
    monkeypatch.setattr(loader, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(loader, "AHEAD_BYTES", 3)
    items = Noted(3)
    batches = iter(ReadAhead(items, batch_size=1))
    for index in range(3):
        assert next(batches)["case"] == [str(index)]
        assert items.begun == [0, 1, 2][: index + 1]
    assert next(batches, None) is None


def test_what_reading_ahead_raises_comes_with_its_batch():
    items = Noted(4)
    batches = iter(ReadAhead(items, batch_size=2))
    assert next(batches)["case"] == ["0", "1"]
    with pytest.raises(DataError, match="damaged"):
        next(batches)


def test_whoever_stops_early_leaves_no_thread():
    items = Noted(3)
    for batch in ReadAhead(items, batch_size=1):
        assert batch["case"] == ["0"]
        break
    (thread,) = items.threads
    assert thread is not threading.current_thread()
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
