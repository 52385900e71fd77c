"""Guidance: between the prediction without metadata, that with them, and beyond."""

import pytest
import torch
from monai.inferers import SimpleInferer

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers import (
    AutocastInferer,
    PlaneInferer,
    SlidingWindowMetadataInferer,
    SteeredInferer,
)
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
