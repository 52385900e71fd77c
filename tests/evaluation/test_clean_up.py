"""Predictions are cleaned before they are counted, and probabilities read before are not."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from skimage.measure import label

from metaseg_monai.bundle.trust import BORN, RECORD, REWRITING, birth_of, was_trained_here
from metaseg_monai.errors import CheckpointError, ConfigError, DataError
from metaseg_monai.evaluation import CalibrationBins, CaseCounts, PerCase
from metaseg_monai.evaluation.clean_up import ChooseCleanUp, CleanUpPredictions, Rules
from metaseg_monai.images.identity import file_digests
from metaseg_monai.sharing.run import clean_up as choose_clean_up
from metaseg_monai.sharing.run import rewriting
from metaseg_monai.training.weights import read_weights, write_fact, write_weights
from metaseg_monai.transforms import AsMaskd, clean_up
from metaseg_monai.transforms.postprocessing import background_shift, clean_logits


def specks(classes=2):
    """Logits of an 8 x 8 image: a 4 x 4 object with a hole of one pixel, and a speck."""
    mask = torch.zeros(8, 8, dtype=torch.long)
    mask[1:5, 1:5] = 1
    mask[2, 2] = 0
    mask[6, 6] = classes - 1
    return (torch.nn.functional.one_hot(mask, classes).movedim(-1, 0) * 3.0)[None]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_best_class_is_that_of_the_cleaned_mask(classes):
    expected = torch.zeros(8, 8, dtype=torch.long)
    expected[1:5, 1:5] = 1
    assert torch.equal(clean_logits(specks(classes), 4, 4).argmax(1)[0], expected)


def test_unchanged_pixels_keep_their_logits_and_changed_ones_their_highest():
    logits = specks()
    cleaned = clean_logits(logits, 4, 0)
    assert cleaned[0, :, 6, 6].tolist() == [3.0, 2.0]
    cleaned[0, :, 6, 6] = logits[0, :, 6, 6]
    assert torch.equal(cleaned, logits)


def test_ties_and_half_precision_do_not_bring_a_speck_back():
    logits = torch.full((1, 2, 5, 5), 300.0, dtype=torch.bfloat16)
    logits[0, 1, 2, 2] = 302.0
    cleaned = clean_logits(logits, 2, 0)
    assert cleaned.dtype == torch.float32
    assert not cleaned.argmax(1).any()


def test_each_image_of_a_batch_is_cleaned_by_itself():
    logits = torch.cat([specks(), specks().flip(1)])
    cleaned = clean_logits(logits, 4, 0).argmax(1)
    assert not cleaned[0, 6, 6]
    assert torch.equal(cleaned[1, 1:5, 1:5], torch.zeros(4, 4, dtype=torch.long))


@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.5, 0.9, 0.99])
def test_masks_at_a_threshold_are_the_cleaned_ones_of_it(threshold):
    logits = 3 * torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    cleaned = clean_logits(logits, 6, 6, background_shift(threshold))
    for before, after in zip(logits, cleaned, strict=True):
        mask = AsMaskd(threshold)({"pred": before})["pred"][0].numpy()
        expected = torch.from_numpy(clean_up(mask, 6, 6))
        assert not torch.equal(expected, torch.from_numpy(mask))
        assert torch.equal(AsMaskd(threshold)({"pred": after})["pred"][0], expected)
        kept = expected == torch.from_numpy(mask)
        assert torch.equal(after[:, kept], before[:, kept])


@pytest.mark.parametrize("threshold", [0.05, 0.95])
def test_cleaned_logits_stay_clean_where_they_are_resized_afterwards(threshold):
    logits = torch.zeros(1, 2, 12, 12)
    logits[0, 1] = -5.0
    logits[0, 1, 2:8, 2:8] = 5.0
    logits[0, 1, 4, 4] = -5.0
    logits[0, 1, 10, 10] = 5.0
    cleaned = clean_logits(logits, 2, 2, background_shift(threshold))[0]
    mask = AsMaskd(threshold)({"pred": cleaned, "native_shape": (36, 36)})["pred"][0].numpy()
    parts, holes = label(mask, connectivity=2), label(mask == 0, connectivity=1)
    assert (parts.max(), holes.max()) == (1, 1)


def test_at_half_nothing_is_added():
    logits = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert background_shift(0.5) == 0
    best = logits.argmax(1)[0]
    expected = torch.from_numpy(clean_up(best.numpy(), 5, 5))
    cleaned = clean_logits(logits, 5, 5, background_shift(0.5))[0]
    changed = (expected != best).nonzero().tolist()
    assert changed
    for row, column in changed:
        pixel, high = logits[0, :, row, column], logits[0, :, row, column].max()
        told = torch.minimum(pixel, high - 1)
        told[expected[row, column]] = high
        assert torch.equal(cleaned[:, row, column], told)


def test_the_handler_cleans_at_its_threshold():
    logits = specks() / 3  # the objects are e times as probable as the background
    seen = {}
    for threshold in (0.5, 0.8):
        engine = Engine(lambda engine, batch: {"pred": batch})
        CleanUpPredictions({"object_px": 4}, threshold).attach(engine)
        seen[threshold] = engine.run([logits]).output["pred"][0]
    assert seen[0.5].argmax(0).sum() == 15
    assert torch.equal(seen[0.8], logits[0])  # no mask at 0.8 has a speck
    with pytest.raises(ConfigError, match="threshold=0"):
        CleanUpPredictions(None, 0)


def counted(sizes, order):
    """Foreground pixels that a handler before and one after the cleaning sees."""
    engine, seen = Engine(lambda engine, batch: {"pred": batch}), {}

    def count(name):
        pred = engine.state.output["pred"]
        seen[name] = int(pred.argmax(1).sum())

    for step in order:
        if step == "clean":
            CleanUpPredictions(sizes).attach(engine)
        else:
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _, name=step: count(name))
    engine.run([specks()])
    return seen


def test_handlers_after_it_see_the_cleaned_prediction_and_those_before_it_do_not():
    seen = counted({"object_px": 4, "hole_px": 4}, ["before", "clean", "after"])
    assert seen == {"before": 16, "after": 16}  # 15 + 1 speck, 16 with the hole filled
    assert counted({"object_px": 4}, ["before", "clean", "after"]) == {"before": 16, "after": 15}
    assert counted({"hole_px": 4}, ["before", "clean", "after"]) == {"before": 16, "after": 17}


@pytest.mark.parametrize("sizes", [None, {}, {"object_px": 0, "hole_px": 0}])
def test_it_is_off_without_sizes(sizes):
    assert counted(sizes, ["clean", "after"]) == {"after": 16}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"objects": 3}, "unknown key 'objects'; expected some of"),
        ({3: 3, "objects": 3}, "unknown key '3'"),
        ({"hole_px": -1}, "hole_px=-1"),
        (30, r"clean_up is 30; expected some of \{.*\}, .* or null for what was chosen"),
        ({"largest": [0]}, "classes are numbers from 1"),
        ({"object_px": {"one": 3}}, "classes are numbers from 1"),
        ({"object_px": {"1": -3}}, "object_px 1=-3"),
        ({"threshold": 1}, "threshold=1"),
        ("null", "clean_up is 'null'; expected"),
        (0, "clean_up is 0; expected"),
    ],
)
def test_wrong_sizes_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        CleanUpPredictions(sizes)


def test_sizes_by_class_and_the_largest_alone():
    mask = np.zeros((12, 12), np.uint8)
    mask[1:4, 1:4], mask[6:8, 6:8], mask[10, 10] = 1, 1, 1
    mask[1:3, 9:11], mask[6, 1] = 2, 2
    small = clean_up(mask, {1: 2, 2: 5})
    assert [int((small == number).sum()) for number in (1, 2)] == [13, 0]
    largest = clean_up(mask, largest=[1, 2])
    assert [int((largest == number).sum()) for number in (1, 2)] == [9, 4]
    assert not clean_up(mask, {1: 10}, largest=[1])[mask == 1].any()
    assert np.array_equal(clean_up(np.zeros_like(mask), largest=[1]), np.zeros_like(mask))


class Facts:
    """What a handler asks weights for."""

    def __init__(self, path=None, trained_on=None, **recorded):
        self.path, self.recorded = path, recorded
        self.trained_on = lambda: trained_on


def volumes(tmp_path, count=3):
    """Items, label and logits of volumes of 5 planes: a body, and a false speck through 2 planes.

    Seen plane by plane the speck is the only object of one plane, where the body is not.
    """
    cases, voxels = [], np.arange(16 * 16 * 5, dtype=np.int16).reshape(16, 16, 5)
    for number in range(count):
        path = tmp_path / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(voxels + np.int16(number), np.eye(4)), path)
        label = torch.zeros(16, 16, 5)
        label[2:9, 2:9, :3] = 1
        wrong = label.clone()
        wrong[12:14, 12:14, 3:5] = 1
        logits = torch.stack([1 - wrong, wrong]) * 4
        for plane in range(5):
            item = {"case": f"{number}_{plane}", "group": str(number), "split": "val"}
            item |= {"mode": "normal", "domain": "all", "image": str(path)}
            item |= {"volume": str(number), "plane": plane, "planes": 5}
            cases.append((item, label[..., plane], logits[..., plane]))
    return cases


def engine_of(cases, size=2):
    """An evaluator that gives the logits of cases in batches."""
    names = ("case", "group", "split", "mode", "domain", "volume", "plane", "planes")

    def batch(part):
        known = {name: [item[name] for item, *_ in part] for name in names if name in part[0][0]}
        known |= {"label": torch.stack([label for _, label, _ in part])[:, None]}
        return {**known, "pred_of": torch.stack([logits for *_, logits in part])}

    class Loader(list):
        dataset = SimpleNamespace(data=[item for item, *_ in cases])

    loader = Loader(batch(cases[at : at + size]) for at in range(0, len(cases), size))

    def step(engine, data):
        engine.state.batch = data
        return {"pred": data["pred_of"]}

    return Engine(step), loader


def counted_volumes(tmp_path, cases, *handlers):
    engine, loader = engine_of(cases)
    for handler in handlers:
        handler.attach(engine)
    counts = PerCase(tmp_path / "counts.csv", CaseCounts(2))
    counts.attach(engine)
    engine.run(loader)
    rows = pd.DataFrame(counts.measure._whole(counts.found))
    return rows.set_index("case")


def test_planes_are_cleaned_as_the_volume_they_make(tmp_path):
    cases = volumes(tmp_path)
    plain = counted_volumes(tmp_path, cases)
    assert (plain["fp"] == 8).all()
    cleaned = counted_volumes(tmp_path, cases, CleanUpPredictions({"largest": [1]}))
    assert (cleaned["fp"] == 0).all()
    assert (cleaned["tp"] == plain["tp"]).all()
    by_size = counted_volumes(tmp_path, cases, CleanUpPredictions({"object_px": 9}))
    assert (by_size["fp"] == 0).all()
    kept = counted_volumes(tmp_path, cases, CleanUpPredictions({"object_px": 8}))  # 4 a plane
    assert (kept["fp"] == 8).all()


def test_planes_of_a_volume_that_lacks_some_come_at_the_end(tmp_path):
    cases = volumes(tmp_path)
    del cases[3]  # of the first volume; known to the dataset
    engine, loader = engine_of(cases)
    loader.dataset.data = [item for item, *_ in volumes(tmp_path)]
    handler, counts = CleanUpPredictions({"largest": [1]}), PerCase(tmp_path / "c", CaseCounts(2))
    handler.attach(engine)
    counts.attach(engine)
    engine.run(loader)
    rows = pd.DataFrame(counts.measure._whole(counts.found)).set_index("case")
    assert rows["tp"].tolist() == [147, 147, 147]
    assert not rows["fp"].any()


@pytest.mark.parametrize("lost", [None, 3])
def test_a_measure_before_it_sees_each_plane_once_and_as_it_was(tmp_path, lost):
    cases = volumes(tmp_path)
    engine, loader = engine_of([one for place, one in enumerate(cases) if place != lost])
    loader.dataset.data = [item for item, *_ in cases]
    bins = PerCase(tmp_path / "calibration.csv", CalibrationBins(2))
    before, behind = (PerCase(tmp_path / name, CaseCounts(2)) for name in ("b.csv", "c.csv"))
    for handler in (bins, before, CleanUpPredictions({"largest": [1]}), behind):
        handler.attach(engine)
    for _ in range(2):  # an earlier run leaves nothing
        engine.run(loader)
        pixels = 16 * 16 * (len(cases) - (lost is not None))
        assert sum(row["pixels"] for row in bins.found) == pixels
        for one, false in ((before, 8), (behind, 0)):
            rows = pd.DataFrame(one.found)
            assert rows["case"].is_unique
            assert rows[["tp", "fp", "fn", "tn"]].to_numpy().sum() == pixels
            assert rows["fp"].sum() == false * 3 - (lost == 3 and one is before) * 4


def test_steps_that_raise_the_case_score_are_kept_and_no_other(tmp_path):
    weights = tmp_path / "model.pt"
    write_weights(weights, torch.nn.Linear(2, 1), {"variant": "none"})
    before = read_weights(weights)[1]
    cases = volumes(tmp_path)
    engine, loader = engine_of(cases)
    chooser = ChooseCleanUp(Facts(weights), 2)
    chooser.attach(engine)
    engine.run(loader)
    chosen = chooser.chosen
    assert chosen["rules"] == {"largest": [1]}
    assert chosen["score"] == 1
    assert chosen["score_before"] == pytest.approx(2 * 147 / (2 * 147 + 8), abs=1e-6)
    assert [one["kept"] for one in chosen["steps"]] == [False, True, False, False]
    after = read_weights(weights)[1]
    assert after == {**before, "clean_up": chosen}
    applied = counted_volumes(tmp_path, cases, CleanUpPredictions(None, weights=Facts(**after)))
    assert not applied["fp"].any()
    off = counted_volumes(tmp_path, cases, CleanUpPredictions({}, weights=Facts(**after)))
    assert off["fp"].all()
    write_fact(weights, "clean_up", None)
    assert read_weights(weights)[1] == before


def test_a_threshold_and_holes_are_chosen_where_they_help(tmp_path):
    write_weights(tmp_path / "model.pt", torch.nn.Linear(2, 1), {})
    label = torch.zeros(16, 16)
    label[3:12, 3:12] = 1
    seen = label.clone()
    seen[6:8, 6:8] = 0
    odds = torch.where(seen > 0, 3.0, -3.0)
    odds[0:2, 12:15] = 0.3  # a probability of .57
    logits = torch.stack([torch.zeros(16, 16), odds])
    names = {"case": "a", "group": "a", "split": "val", "mode": "normal", "domain": "all"}
    cases = [({**names, "case": c, "group": c, "image": "a.png"}, label, logits) for c in "ab"]
    engine, loader = engine_of(cases)
    chooser = ChooseCleanUp(Facts(tmp_path / "model.pt"), 2)
    chooser.attach(engine)
    engine.run(loader)
    assert chooser.chosen["rules"]["threshold"] == 0.6
    assert chooser.chosen["rules"]["hole_px"] == 64
    assert chooser.chosen["score"] == 1
    facts = read_weights(tmp_path / "model.pt")[1]
    applied = counted_volumes(tmp_path, cases, CleanUpPredictions(None, weights=Facts(**facts)))
    assert applied.loc["a", ["tp", "fp", "fn"]].tolist() == [81, 0, 0]


def chosen_of(tmp_path, cases, trained_on=None):
    write_weights(tmp_path / "model.pt", torch.nn.Linear(2, 1), {})
    engine, loader = engine_of(cases)
    chooser = ChooseCleanUp(Facts(tmp_path / "model.pt", trained_on), 2)
    chooser.attach(engine)
    engine.run(loader)
    return chooser.chosen


def test_what_may_be_chance_is_not_kept(tmp_path, caplog):
    cases = volumes(tmp_path)
    one_group = [({**item, "group": "g"}, *rest) for item, *rest in cases]
    assert chosen_of(tmp_path, one_group)["rules"] == {}
    assert "chosen by 1 group(s) of validation cases" in caplog.text
    # of two a second body is lost with the specks, so that one gains and two lose
    mixed = []
    for item, truth, logits in cases:
        truth = truth.clone()
        if item["volume"] != "0" and item["plane"] == 3:
            truth[12:14, 12:14] = 1
        mixed.append((item, truth, logits))
    chosen = chosen_of(tmp_path, mixed)
    assert "largest" not in chosen["rules"]
    assert chosen["groups"] == 3


def test_cases_without_foreground_count_in_every_step(tmp_path):
    """Emptied of a speck they score 1; they are not left out of the mean of that step alone."""
    names = {"split": "val", "mode": "normal", "domain": "all", "image": "a.png"}
    cases = []
    for case, size in (("a", 6), ("b", 6), ("c", 0), ("d", 0)):
        label = torch.zeros(16, 16)
        label[:size, :size] = 1
        seen = label.clone()
        seen[12, 12] = 1
        logits = torch.stack([1 - seen, seen]) * 4
        cases.append(({**names, "case": case, "group": case}, label, logits))
    chosen = chosen_of(tmp_path, cases)
    assert chosen["score_before"] == pytest.approx(2 * 36 / 73 / 2, abs=1e-6)
    assert chosen["rules"] == {"largest": [1], "object_px": {"1": 4}}
    assert chosen["score"] == 1
    assert not any(one["score"] != one["score"] for one in chosen["steps"])


def test_it_is_chosen_only_by_what_the_training_chose_by(tmp_path):
    cases = volumes(tmp_path)
    files = [(item["image"],) for item, *_ in cases[::5]]
    known = pd.DataFrame({"pixels": file_digests(files), "group": "g", "case": "c"})
    with pytest.raises(DataError, match=r"'0': not among the images by which the training"):
        chosen_of(tmp_path, cases, known.assign(split=["train", "val", "val"]))
    assert "clean_up" not in read_weights(tmp_path / "model.pt")[1]
    assert chosen_of(tmp_path, cases, known.assign(split="val"))["rules"] == {"largest": [1]}


def test_a_model_that_is_rewritten_stays_trusted_whenever_that_is_killed(tmp_path):
    write_weights(tmp_path / "model.pt", torch.nn.Linear(2, 1), {})
    record = {BORN: birth_of(tmp_path / "model.pt"), "bundle": "b"}
    (tmp_path / RECORD).write_text(json.dumps(record))
    killed = [rewriting(tmp_path) for _ in range(2)]  # kept, as what is let go comes to its end
    for one in killed:  # the second goes on where the first was killed
        one.__enter__()
        assert was_trained_here(tmp_path)
        write_fact(tmp_path / "model.pt", "clean_up", {"rules": {}})
        assert was_trained_here(tmp_path)
    with rewriting(tmp_path):
        pass
    assert not (tmp_path / REWRITING).exists()
    assert was_trained_here(tmp_path)
    assert json.loads((tmp_path / RECORD).read_text())["bundle"] == "b"
    write_fact(tmp_path / "model.pt", "clean_up", None)
    assert not was_trained_here(tmp_path)  # by whom, nobody knows
    with rewriting(tmp_path):
        write_fact(tmp_path / "model.pt", "clean_up", None)
    assert not was_trained_here(tmp_path)


@pytest.mark.parametrize("setting", ["members", "ckpt_path", "guidance", "mirror", "cases"])
def test_a_choice_is_of_the_model_as_it_is_used(tmp_path, setting):
    with pytest.raises(ConfigError, match=f"takes no --{setting}, as .* it takes dataset_dir"):
        choose_clean_up(tmp_path, **{setting: "x"})


def test_nothing_is_chosen_of_slices_with_files_or_of_empty_cases(tmp_path):
    write_weights(tmp_path / "model.pt", torch.nn.Linear(2, 1), {})
    names = {"case": "a", "group": "a", "split": "val", "mode": "normal", "domain": "all"}
    empty = torch.zeros(8, 8), torch.stack([torch.ones(8, 8), torch.zeros(8, 8)])
    for more, message in (
        ({"volume": "v", "plane": 0, "planes": 1}, "slices with files of their own"),
        ({}, "no validation case has a score"),
    ):
        engine, loader = engine_of([({**names, "image": "a.png", **more}, *empty)])
        ChooseCleanUp(Facts(tmp_path / "model.pt"), 2).attach(engine)
        with pytest.raises(DataError, match=message):
            engine.run(loader)
    assert "clean_up" not in read_weights(tmp_path / "model.pt")[1]


def test_a_fact_is_for_weights_that_say_what_they_are(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="without facts"):
        write_fact(tmp_path / "model.pt", "clean_up", {})


def test_rules_are_plain_values_and_back():
    rules = Rules(0.4, (1, 2), {1: 16}, 64)
    assert Rules.of(rules.plain) == rules
    assert Rules().plain == {}
    assert Rules.of({}) == Rules()
