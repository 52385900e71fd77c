"""Tiles: what is kept of them, and when they give what the untiled image would."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.sliding import (
    BLENDS,
    SliceMetadataInferer,
    SlidingWindowMetadataInferer,
    pyramid_weights,
)
from metaseg_monai.inferers.tiles import tile_spans
from metaseg_monai.networks import METADATA_VARIANTS, Unet3

REACH = {2: 33, 3: 69, 5: 285}  # pixels that a Unet3 of so many levels sees to each side


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 200), st.integers(1, 12), st.integers(1, 8), st.integers(0, 20))
def test_kept_parts_cover_every_pixel_once(size, cells, align, margin):
    window = (cells - 1) * align + align + 2 * margin // align * align + 2 * align
    spans = tile_spans(size, window, margin, align)
    assert [span.keep_start for span in spans] == [0, *(span.keep_stop for span in spans[:-1])]
    assert spans[-1].keep_stop == spans[-1].stop == size
    assert all(span.keep_start < span.keep_stop for span in spans)
    for span in spans:
        assert span.start % align == 0
        assert span.stop == size or span.stop - span.start == window
        assert span.stop - span.start > min(window, size) - align
        assert span.start == 0 or span.keep_start - span.start >= margin
        assert span.stop == size or span.stop - span.keep_stop >= margin


def test_each_pixel_comes_from_one_window_by_hand():
    """Windows of 6 at 0, 4 and 8 on 14 pixels, each giving its own number, less margins of 1."""
    numbers = iter([1.0, 2.0, 3.0])
    out = SlidingWindowMetadataInferer((1, 6), 1, blend="discard", margin_px=(0, 1))(
        torch.zeros(1, 1, 1, 14), lambda window: torch.full_like(window, next(numbers))
    )
    assert out.flatten().tolist() == [1.0] * 5 + [2.0] * 4 + [3.0] * 5


def test_margins_are_half_of_the_overlap_unless_given():
    seen = []

    def network(window):
        seen.append(window.shape)
        return window

    image = torch.rand(1, 1, 20, 8)
    SlidingWindowMetadataInferer((8, -1), 1, overlap=0.5, blend="discard")(image, network)
    assert len(seen) == 4  # a step of 8 - 2 * 2
    seen.clear()
    SlidingWindowMetadataInferer((8, -1), 1, 0.5, blend="discard", margin_px=0)(image, network)
    assert len(seen) == 3


def test_pyramid_weights_by_hand():
    """Windows of 4 at 0 and 2 on 6 pixels: weights 1/4, 3/4, 3/4, 1/4."""
    numbers = iter([0.0, 1.0])
    out = SlidingWindowMetadataInferer((1, 4), 1, overlap=(0, 0.5), blend="pyramid")(
        torch.zeros(1, 1, 1, 6), lambda window: torch.full_like(window, next(numbers))
    )
    assert out.flatten().tolist() == [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("roi_size", [(8, 8), (-1, 8), 8])
def test_pyramid_is_blended_as_monai_blends_with_our_weights(roi_size):
    torch.manual_seed(0)
    network, image = nn.Conv2d(1, 2, 3, padding=1), torch.rand(2, 1, 13, 21)
    theirs = SlidingWindowInferer((13 if roi_size == (-1, 8) else 8, 8), 3)
    theirs.roi_weight_map = pyramid_weights(theirs.roi_size)
    with torch.no_grad():
        ours = SlidingWindowMetadataInferer(roi_size, 2, blend="pyramid")(image, network)
        torch.testing.assert_close(ours, theirs(image, network))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [(1, 1), (10, 13), (31, 33), (33, 47), (97, 17)])
def test_any_size_is_kept_and_an_identity_stays_one(blend, size):
    images, meta = torch.rand(2, 1, *size), torch.tensor([[1.0], [-2.0]])
    inferer = SlidingWindowMetadataInferer(32, 3, blend=blend)
    out = inferer(images, lambda window, meta: window * meta[:, :, None, None], meta=meta)
    torch.testing.assert_close(out, images * meta[:, :, None, None])


@pytest.mark.parametrize("blend", BLENDS)
def test_images_smaller_than_the_window_lie_in_its_middle(blend):
    image, place = torch.rand(1, 1, 5, 10), torch.arange(64.0).reshape(1, 1, 8, 8)
    out = SlidingWindowMetadataInferer(8, blend=blend)(image, lambda window: window * 0 + place)
    torch.testing.assert_close(out[..., 0], place[..., 1:6, 0])  # 1 row above, 2 below


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(BLENDS),
    st.lists(st.integers(17, 97), min_size=2, max_size=2),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.25, 0.6]),
    st.integers(0, 100),
)
def test_a_batch_equals_its_images_alone(blend, size, sw_batch_size, overlap, seed):
    torch.manual_seed(seed)
    layer, images, meta = nn.Conv2d(1, 2, 3, padding=1), torch.randn(3, 1, *size), torch.randn(3, 1)

    def network(window, meta):
        return layer(window) * meta[:, :, None, None]

    kept = {"overlap": overlap, "blend": blend}
    with torch.no_grad():
        mixed = SlidingWindowMetadataInferer(24, sw_batch_size, **kept)(images, network, meta)
        alone = SlidingWindowMetadataInferer(24, 1, **kept)
        pairs = zip(images.split(1), meta.split(1), strict=True)
        expected = torch.cat([alone(image, network, row) for image, row in pairs])
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=0)


def unet(variant, levels, channels):
    """A network whose every weight and statistic counts, so that far pixels are felt."""
    torch.manual_seed(1)
    meta = 3 if variant in METADATA_VARIANTS else 0
    network = Unet3(variant=variant, meta_features=meta, channels=channels, levels=levels).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.02, 0.2)
    return network


def tiled_minus_untiled(network, size, roi_size, margin_px, align):
    metadata = {"meta": torch.rand(2, 3).to(next(network.parameters()))}
    metadata = metadata if network.meta_features else {}
    images = torch.rand(2, 1, *size).to(next(network.parameters()))
    settings = {"blend": "discard", "margin_px": margin_px, "align": align}
    with torch.no_grad():
        untiled = network(images, **metadata)
        tiled = SlidingWindowMetadataInferer(roi_size, 2, **settings)(images, network, **metadata)
    return float((tiled - untiled).abs().max()), float(untiled.std())


@pytest.mark.parametrize("variant", ["none", "me", "film"])
@pytest.mark.parametrize(("levels", "size"), [(2, (131, 97)), (3, (203, 195))])
def test_tiles_give_the_untiled_image_of_any_size(variant, levels, size):
    """The sizes are no multiples of 2 ** levels: the last tile ends with the image, as pooling."""
    align, margin = 2**levels, REACH[levels]
    roi_size = {2: 96, 3: 192}[levels]
    network = unet(variant, levels, channels=4)
    difference, spread = tiled_minus_untiled(network, size, roi_size, margin, align)
    assert difference <= 1e-5 * max(1, spread)
    exact, spread = tiled_minus_untiled(network.double(), size, roi_size, margin, align)
    assert exact <= 1e-12 * max(1, spread)


def test_a_margin_one_pixel_short_or_tiles_off_the_grid_are_felt():
    network = unet("none", 2, channels=4).double()
    for parameter in network.parameters():
        parameter.data.abs_()  # so that nothing cancels and no ReLU stops it
    for margin, align, equal in ((33, 4, True), (32, 4, False), (33, 1, False)):
        roi_size = 96 if align == 4 else 95
        difference, spread = tiled_minus_untiled(network, (150, 96), roi_size, margin, align)
        assert (difference <= 1e-12 * spread) == equal


@pytest.mark.parametrize("variant", ["se", "sme"])
def test_gates_that_pool_the_image_see_the_tile_instead(variant):
    network = unet(variant, 2, channels=4).double()
    difference, spread = tiled_minus_untiled(network, (131, 97), 96, 33, 4)
    assert difference > 1e-4 * spread


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["none", "me", "film"])
def test_the_networks_of_the_paper_tile_exactly(variant):
    network = unet(variant, 5, channels=64)
    difference, spread = tiled_minus_untiled(network, (1801, 75), (704, -1), REACH[5], 32)
    assert difference <= 1e-5 * max(1, spread)


def test_several_outputs_and_3d_slices_are_tiled_too():
    image = torch.rand(1, 1, 20, 13)
    out = SlidingWindowMetadataInferer(8, blend="discard")(
        image, lambda window: {"pred": window, "twice": torch.cat([window, 2 * window], dim=1)}
    )
    torch.testing.assert_close(out["pred"], image)
    torch.testing.assert_close(out["twice"], torch.cat([image, 2 * image], dim=1))
    volume = torch.rand(2, 1, 20, 13, 3)
    sliced = SliceMetadataInferer((8, -1), blend="discard")(volume, lambda window: window)
    torch.testing.assert_close(sliced, volume)


def test_a_network_that_changes_the_size_is_refused():
    with pytest.raises(ConfigError, match="keeps the size"):
        SlidingWindowMetadataInferer(8, blend="discard")(torch.rand(1, 1, 9, 9), nn.MaxPool2d(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blend": "mean"}, "gaussian, constant, pyramid, discard"),
        ({"margin_px": 2}, "settings of blend discard"),
        ({"blend": "pyramid", "align": 2}, "settings of blend discard"),
        ({"blend": "discard", "margin_px": 4}, "keeps 0 without its margins"),
        ({"blend": "discard", "margin_px": -1}, "0 or more"),
        ({"blend": "discard", "margin_px": (1, 1)}, "one per axis"),
        ({"blend": "discard", "align": 0}, "1 or more"),
        ({"blend": "discard", "align": 3}, "no multiple of align 3"),
        ({"blend": "discard", "margin_px": 3, "align": 4}, "at least 4"),
        ({"blend": "discard", "buffer_steps": 2}, "leave buffer_steps out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SlidingWindowMetadataInferer(8, **arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin_px": 2.5},
        {"margin_px": True},
        {"align": 2.0},
        {"overlap": "0.2"},
        {"overlap": (0.2,)},
    ],
)
def test_settings_of_the_wrong_kind_are_told(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SlidingWindowMetadataInferer((32, 32), blend="discard", **wrong)
