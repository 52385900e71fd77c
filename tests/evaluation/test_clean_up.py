"""Predictions are cleaned before they are counted, and probabilities read before are not."""

import pytest
import torch
from ignite.engine import Engine, Events
from skimage.measure import label

from metaseg_monai.errors import ConfigError
from metaseg_monai.transforms import AsMaskd, clean_up
from metaseg_monai.transforms.postprocessing import (
    CleanUpPredictions,
    background_shift,
    clean_logits,
)


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
    engine = Engine(lambda engine, batch: None)
    CleanUpPredictions(sizes).attach(engine)
    assert not engine.has_event_handler(CleanUpPredictions(sizes), Events.ITERATION_COMPLETED)
    assert counted(sizes, ["clean", "after"]) == {"after": 16}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"objects": 3}, "unknown key 'objects'; expected object_px and hole_px"),
        ({3: 3, "objects": 3}, "unknown key '3'"),
        ({"hole_px": -1}, "hole_px=-1"),
        (30, r"clean_up is 30; expected object_px and hole_px, as \{.*\}, or null for none"),
        ("null", "clean_up is 'null'; expected"),
        (0, "clean_up is 0; expected"),
    ],
)
def test_wrong_sizes_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        CleanUpPredictions(sizes)
