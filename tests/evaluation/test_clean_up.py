"""Predictions are cleaned before they are counted, and probabilities read before are not."""

import pytest
import torch
from ignite.engine import Engine, Events

from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation.masks import CleanUpPredictions, clean_logits


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
