"""Guidance: between the prediction without metadata, that with them, and beyond."""

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers import (
    AutocastInferer,
    PlaneInferer,
    SlidingWindowMetadataInferer,
    SteeredInferer,
)
from metaseg_monai.inferers.steered import AS_SET, spread
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.networks import Unet3

KNOWN = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
SCHEMA = MetadataSchema(
    [
        Categorical(name="line", values=("HeLa", "MDCK"), **KNOWN),
        Continuous(name="size_mm", unit="mm", range=(0, 100), **KNOWN),
    ]
)
META = torch.tensor([[1.0, 0, 0, 0.4, 0], [0, 1.0, 0, 0.9, 0]])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Unet3(
        variant="me", schema=SCHEMA, channels=4, levels=1, unknown_trained=True, out_channels=3
    ).eval()


class TwoHeads(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image, meta=None):
        logits = self.network(image, meta)
        return {"cells": logits, "spots": -logits}


INFERERS = {
    "whole": (SimpleInferer, (9, 7)),
    "windows": (lambda: SlidingWindowMetadataInferer(8, overlap=0.5), (19, 13)),
    "tiles": (lambda: SlidingWindowMetadataInferer(16, blend="discard", align=2), (21, 18)),
    "planes": (lambda: PlaneInferer(SlidingWindowMetadataInferer((-1, -1))), (10, 8, 3)),
}
each_inferer = pytest.mark.parametrize("name", INFERERS)


@each_inferer
@torch.no_grad()
def test_nothing_and_all_are_the_plain_runs_to_the_bit(network, name):
    make, size = INFERERS[name]
    image = torch.rand(2, 1, *size)
    unknown = torch.from_numpy(SCHEMA.unknown()).expand(2, -1)
    for wrap in (lambda one: one, AutocastInferer):
        plain = wrap(make())
        for w, meta in ((0, unknown), (0.0, unknown), (1, META), (1.0, META), (None, META)):
            guided = wrap(SteeredInferer(make(), network, w))(image, network, meta=META)
            assert torch.equal(guided, plain(image, network, meta=meta))


@each_inferer
@pytest.mark.parametrize("w", [0.5, 1.5, 2])
@torch.no_grad()
def test_logits_lie_on_the_line_through_both(network, name, w):
    make, size = INFERERS[name]
    image = torch.rand(2, 1, *size)
    unknown = torch.from_numpy(SCHEMA.unknown()).expand(2, -1)
    u, v = (make()(image, network, meta=meta) for meta in (unknown, META))
    guided = SteeredInferer(make(), network, w)(image, network, meta=META)
    torch.testing.assert_close(guided, u + w * (v - u), atol=1e-5, rtol=1e-5)
    assert not torch.equal(u, v)


@torch.no_grad()
def test_several_outputs_are_guided_each(network):
    heads, image = TwoHeads(network), torch.rand(2, 1, 8, 8)
    one = SteeredInferer(SimpleInferer(), network, 0.5)(image, network, meta=META)
    both = SteeredInferer(SimpleInferer(), heads, 0.5)(image, heads, meta=META)
    torch.testing.assert_close(both, {"cells": one, "spots": -one})


@torch.no_grad()
def test_what_reduces_the_logits_gets_the_guided_ones(network):
    window = SlidingWindowMetadataInferer((-1, -1))
    image = torch.rand(2, 1, 8, 8)
    logits = SteeredInferer(window, network, 1.7)(image, network, meta=META)
    window.reduce = lambda part: part.argmax(1, keepdim=True)
    classes = SteeredInferer(window, network, 1.7)(image, network, meta=META)
    assert torch.equal(classes, logits.argmax(1, keepdim=True))


@pytest.mark.parametrize("w", [-0.1, 2.1, float("nan"), True, "0.5", [1]])
def test_other_strengths_are_refused(network, w):
    with pytest.raises(ConfigError, match=r"guidance must be a number from 0 .* to 2"):
        SteeredInferer(SimpleInferer(), network, w)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"variant": "se"}, "reads no metadata"),
        ({"variant": "me", "schema": SCHEMA}, "never saw in training"),
        ({"variant": "me-dummy", "schema": SCHEMA, "unknown_trained": True}, "or a dummy"),
        ({"variant": "me", "meta_features": 5}, "it has no schema"),
    ],
)
@pytest.mark.parametrize("w", [0, 0.5, 1])
def test_networks_that_know_no_unknown_are_refused(settings, why, w):
    bare = Unet3(channels=4, levels=1, **settings)
    with pytest.raises(ConfigError, match=f"{why}.*; leave guidance out, or train with"):
        SteeredInferer(SimpleInferer(), bare, w)
    SteeredInferer(SimpleInferer(), bare)
    with pytest.raises(ConfigError, match="leave guidance out"):
        SteeredInferer(SimpleInferer(), torch.nn.Conv2d(1, 2, 3), w)


# Metadata that are known to lie in a range.

RANGE = torch.from_numpy(SCHEMA.span({"line": "HeLa:0.5|MDCK:0.5", "size_mm": "20..80"}))


def mean_of(network, make, image, draws, seed=0):
    places = spread(draws, SCHEMA.width, seed)
    each = [
        make()(
            image, network, meta=(RANGE[0] + place * (RANGE[1] - RANGE[0])).expand(len(image), -1)
        )
        for place in places
    ]
    return torch.stack([one.softmax(1) for one in each]).mean(0).log()


@pytest.mark.parametrize("name", ["whole", "planes"])
@torch.no_grad()
def test_probabilities_are_averaged_over_draws(network, name):
    make, size = INFERERS[name]
    image = torch.rand(2, 1, *size)
    pred = SteeredInferer(make(), network, draws=5)(image, network, meta=RANGE.expand(2, 2, -1))
    torch.testing.assert_close(pred, mean_of(network, make, image, 5), atol=1e-5, rtol=1e-5)
    again = SteeredInferer(make(), network, draws=5)(image, network, meta=RANGE.expand(2, 2, -1))
    assert torch.equal(pred, again)
    other = SteeredInferer(make(), network, draws=5, seed=1)(
        image, network, meta=RANGE.expand(2, 2, -1)
    )
    assert not torch.equal(pred, other)


class Steep(torch.nn.Module):
    """Sure of one class up to a size of 60, of the other above."""

    def forward(self, image, meta=None):
        sure = 50 * torch.sign(meta[:, 3] - 0.6)[:, None, None, None].expand_as(image)
        return torch.cat([-sure, sure], dim=1)


def test_the_average_is_not_what_the_mean_metadata_give():
    image, network = torch.rand(1, 1, 4, 4), Steep()
    pred = SteeredInferer(SimpleInferer(), network, draws=12)(image, network, meta=RANGE[None])
    assert pred.softmax(1)[0, :, 0, 0].tolist() == pytest.approx([2 / 3, 1 / 3])
    middle = network(image, RANGE.mean(0, keepdim=True)).softmax(1)
    assert middle[0, :, 0, 0].tolist() == pytest.approx([1, 0])


@each_inferer
@torch.no_grad()
def test_images_with_single_values_are_the_plain_runs_to_the_bit(network, name):
    make, size = INFERERS[name]
    image = torch.rand(2, 1, *size)
    both = torch.stack([META, META], dim=1)
    plain = make()(image, network, meta=META)
    assert torch.equal(SteeredInferer(make(), network)(image, network, meta=both), plain)
    mixed = torch.stack([both[0], RANGE])
    pred = SteeredInferer(make(), network, draws=3)(image, network, meta=mixed)
    alone = SteeredInferer(make(), network, draws=3)(image[1:], network, meta=mixed[1:])
    torch.testing.assert_close(pred[0], plain[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(pred[1:], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_ranges_and_guidance_go_together(network):
    image, span = torch.rand(1, 1, 8, 8), RANGE[None]
    unknown = torch.from_numpy(SCHEMA.unknown())[None]
    without = network(image, unknown)
    none = SteeredInferer(SimpleInferer(), network, 0)(image, network, meta=span)
    assert torch.equal(none, without)
    guided = SteeredInferer(SimpleInferer(), network, 1.5, draws=4)(image, network, meta=span)
    each = [
        without + 1.5 * (network(image, RANGE[:1] + p * (RANGE[1:] - RANGE[:1])) - without)
        for p in spread(4, SCHEMA.width, 0)
    ]
    mean = torch.stack([one.softmax(1) for one in each]).mean(0).log()
    torch.testing.assert_close(guided, mean, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_that_are_predicted_are_averaged_as_they_are():
    def square(images, meta):
        return images[:, :1] + meta[:, :1, None, None] ** 2

    images = torch.zeros(2, 1, 4, 4)
    meta = torch.tensor([[[0.0], [1.0]], [[0.5], [0.5]]])
    inferer = SteeredInferer(SimpleInferer(), nn.Identity(), draws=200, average="values")
    found = inferer(images, square, meta=meta)
    assert found[0].mean().item() == pytest.approx(1 / 3, abs=0.005)  # of x^2 from 0 to 1
    assert torch.equal(found[1], torch.full((1, 4, 4), 0.25))


def test_one_channel_is_averaged_as_a_sigmoid():
    network = Unet3(variant="me", schema=SCHEMA, channels=4, levels=1, out_channels=1).eval()
    image = torch.rand(1, 1, 8, 8)
    pred = SteeredInferer(SimpleInferer(), network, draws=4)(image, network, meta=RANGE[None])
    each = [
        network(image, RANGE[:1] + p * (RANGE[1:] - RANGE[:1])).sigmoid()
        for p in spread(4, SCHEMA.width, 0)
    ]
    torch.testing.assert_close(pred.sigmoid(), torch.stack(each).mean(0))


@pytest.mark.parametrize("draws", [0, 1.5, True, "many"])
def test_other_numbers_of_draws_are_refused(network, draws):
    with pytest.raises(ConfigError, match="draws must be a whole number from 1"):
        SteeredInferer(SimpleInferer(), network, draws=draws)


@pytest.mark.parametrize(("w", "runs"), [(None, 1), (0, 1), (1, 1), (0.5, 2)])
def test_the_network_runs_twice_only_between_and_beyond(network, w, runs):
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    SteeredInferer(SimpleInferer(), network, guidance=w)(torch.rand(2, 1, 9, 7), network, META)
    assert len(calls) == runs


@each_inferer
@torch.no_grad()
def test_images_of_a_batch_may_have_a_guidance_of_their_own(network, name):
    make, size = INFERERS[name]
    image, rows = torch.rand(3, 1, *size), META[[0, 1, 0]]
    strength = torch.tensor([0.5, AS_SET, 2.0])[:, None].expand_as(rows)
    own = SteeredInferer(make(), network)(
        image, network, meta=torch.stack([rows, rows, strength], 1)
    )
    for place, w in enumerate((0.5, None, 2.0)):
        alone = SteeredInferer(make(), network, w)
        one = slice(place, place + 1)
        expected = alone(image[one], network, meta=rows[one])
        torch.testing.assert_close(own[one], expected, rtol=0, atol=3e-6)
    off = own[0] - make()(image, network, meta=rows)[0]
    assert off.abs().max() > 2e-5
