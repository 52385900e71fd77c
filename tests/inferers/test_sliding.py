"""Windows and tiles: each with its own image's metadata, and what is kept of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.images.lazy import LazyTensor
from metaseg_monai.inferers import PlaneInferer, SlidingWindowMetadataInferer, each_tensor, sliding
from metaseg_monai.inferers.sliding import BLENDS, map_tensors, pyramid_weights, tile_spans
from metaseg_monai.networks import Unet3, reads_metadata

REACH = {
    2: 33,
    3: 69,
    5: 285,
}  # margin that a Unet3 of so many levels needs where tiles are aligned


class Steered(nn.Module):
    """A convolution scaled and shifted by metadata; counts its calls."""

    def __init__(self, spatial_dims=2):
        super().__init__()
        torch.manual_seed(0)
        kind = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.layer = kind(1, 2, 3, padding=1)
        self.calls = 0

    def forward(self, image, meta=None):
        self.calls += 1
        out = self.layer(image)
        if meta is None:
            return out
        if meta.shape[0] != image.shape[0]:
            raise ValueError("a row of metadata per image")
        scale, shift = (meta[:, i].reshape(-1, *[1] * (image.ndim - 1)) for i in (0, 1))
        return out * scale + shift


def one_by_one(inferer, images, network, meta):
    """Run each image alone, the network with its row."""
    with torch.no_grad():
        return torch.cat(
            [
                inferer(image, lambda window, row=row: network(window, row))
                for image, row in zip(images.split(1), meta.split(1), strict=True)
            ]
        )


@st.composite
def window_cases(draw):
    dims = draw(st.sampled_from([2, 3]))
    size, roi = ((3, 41), (4, 24)) if dims == 2 else ((2, 13), (3, 8))
    return {
        "batch": draw(st.integers(1, 4)),
        "sw_batch_size": draw(st.integers(1, 8)),
        "size": [draw(st.integers(*size)) for _ in range(dims)],
        "roi_size": [draw(st.integers(*roi) | st.just(-1)) for _ in range(dims)],
        "overlap": draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7])),
        "blend": draw(st.sampled_from(["gaussian", "constant"])),
        "seed": draw(st.integers(0, 1000)),
    }


def largest_difference(case):
    """Run a batch with windows mixed, and each image alone by MONAI; compare."""
    network = Steered(len(case["size"]))
    torch.manual_seed(case["seed"])
    images = torch.randn(case["batch"], 1, *case["size"])
    meta = torch.randn(case["batch"], 2) * 3
    common = {key: case[key] for key in ("roi_size", "overlap")}
    inferer = SlidingWindowMetadataInferer(
        sw_batch_size=case["sw_batch_size"], blend=case["blend"], **common
    )
    alone = SlidingWindowInferer(sw_batch_size=1, mode=case["blend"], **common)
    with torch.no_grad():
        mixed = inferer(images, network, meta=meta)
    assert mixed.shape == (case["batch"], 2, *case["size"])
    return float((mixed - one_by_one(alone, images, network, meta)).abs().max())


@settings(max_examples=60, deadline=None)
@given(window_cases())
def test_mixed_windows_equal_images_run_alone(case):
    assert largest_difference(case) <= 1e-5


@pytest.mark.slow
def test_none_of_500_cases_is_mixed():
    run, differing = [], []

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(window_cases())
    def count(case):
        run.append(case)
        if largest_difference(case) > 1e-5:
            differing.append(case)

    count()
    assert len(run) >= 500
    assert differing == []


def test_monai_alone_mixes_what_ours_keeps_apart():
    """The fault this is for: were MONAI to mend it, the wrapper could go."""
    images, meta = torch.ones(2, 1, 8, 8), torch.tensor([[1.0, 0.0], [5.0, 0.0]])

    def network(window, meta):
        return window * meta[:, :1, None, None]

    theirs = SlidingWindowInferer(4, sw_batch_size=2, overlap=0.0)(images, network, meta=meta)
    ours = SlidingWindowMetadataInferer(4, sw_batch_size=2, overlap=0.0)(images, network, meta=meta)
    assert theirs[0].unique().tolist() != [1.0]
    assert ours[0].unique().tolist() == [1.0]
    assert ours[1].unique().tolist() == [5.0]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(BLENDS),
    st.lists(st.integers(17, 97), min_size=2, max_size=2),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.25, 0.6]),
    st.integers(0, 100),
)
def test_a_batch_equals_its_images_alone_by_every_blend(blend, size, sw_batch_size, overlap, seed):
    torch.manual_seed(seed)
    network, images, meta = Steered(), torch.randn(3, 1, *size), torch.randn(3, 2)
    kept = {"overlap": overlap, "blend": blend}
    with torch.no_grad():
        mixed = SlidingWindowMetadataInferer(24, sw_batch_size, **kept)(images, network, meta)
    alone = one_by_one(SlidingWindowMetadataInferer(24, 1, **kept), images, network, meta)
    torch.testing.assert_close(mixed, alone, atol=1e-5, rtol=0)


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


def test_without_meta_the_network_gets_the_image_alone():
    def network(*args, **kwargs):
        assert len(args) == 1
        assert kwargs == {}
        return args[0]

    image = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(SlidingWindowMetadataInferer(4)(image, network), image)


@pytest.mark.parametrize("blend", BLENDS)
def test_several_outputs_keep_their_form_and_meta_tensors_are_taken(blend):
    def network(image, meta):
        return {"pred": image * meta[:, :1, None, None], "twice": torch.cat([image, image], dim=1)}

    plain = torch.rand(2, 1, 20, 13)
    image, meta = MetaTensor(plain), MetaTensor(torch.tensor([[2.0], [3.0]]))
    out = SlidingWindowMetadataInferer(8, blend=blend)(image, network, meta=meta)
    assert set(out) == {"pred", "twice"}
    expected = network(plain, meta.as_tensor())
    for name, pred in out.items():
        torch.testing.assert_close(pred.as_subclass(torch.Tensor), expected[name])


@pytest.mark.parametrize("meta", [torch.ones(1, 2), torch.ones(5, 2), torch.ones(4), torch.ones(2)])
@pytest.mark.parametrize(
    ("inferer", "size"),
    [
        (SlidingWindowMetadataInferer((4, 4)), (9, 9)),
        (PlaneInferer(SlidingWindowMetadataInferer((4, 4))), (9, 9, 3)),
    ],
)
def test_wrong_rows_of_meta_raise_before_any_window_is_run(inferer, size, meta):
    network = Steered()
    with pytest.raises(MetadataError, match="expected 4 rows"):
        inferer(torch.ones(4, 1, *size), network, meta=meta)
    assert network.calls == 0


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="metadata"):
        SlidingWindowMetadataInferer(4)(torch.ones(1, 1, 9, 9), Steered(), metadata=1)
    with pytest.raises(TypeError, match="metadata"):
        PlaneInferer(SlidingWindowMetadataInferer(4))(torch.ones(1, 1, 9, 9), Steered(), metadata=1)
    with pytest.raises(TypeError, match="with_coord"):
        SlidingWindowMetadataInferer(4, with_coord=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"roi_size": 2.5}, "roi_size must be whole numbers"),
        ({"roi_size": ()}, "roi_size must be whole numbers"),
        ({"sw_batch_size": 0}, "sw_batch_size must be whole numbers, 1 or more"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": (0.5, -0.1)}, "overlap"),
        ({"blend": "cubic"}, "gaussian, constant, pyramid, discard"),
        ({"margin_px": 2}, "settings of blend discard"),
        ({"blend": "pyramid", "align": 2}, "settings of blend discard"),
        ({"blend": "discard", "margin_px": 4}, "keeps 0 without its margins"),
        ({"blend": "discard", "margin_px": -1}, "0 or more"),
        ({"blend": "discard", "margin_px": (1, 1, 1)}, "one per axis"),
        ({"blend": "discard", "align": 0}, "1 or more"),
        ({"blend": "discard", "align": 3}, "no multiple of align 3"),
        ({"blend": "discard", "margin_px": 3, "align": 4}, "at least 4"),
        ({"blend": "discard", "margin_px": 2.5}, "margin_px"),
        ({"blend": "discard", "margin_px": True}, "margin_px"),
        ({"blend": "discard", "align": 2.0}, "align"),
        ({"blend": "discard", "overlap": "0.2"}, "overlap"),
        ({"blend": "discard", "overlap": (0.2,)}, "overlap must be one number or one per axis"),
    ],
)
def test_settings_that_are_wrong_or_do_not_go_together_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SlidingWindowMetadataInferer(**{"roi_size": (8, 8), **wrong})


def test_images_of_other_axes_are_refused():
    with pytest.raises(DataError, match="2 spatial axes"):
        SlidingWindowMetadataInferer((4, 4))(torch.ones(1, 1, 9, 9, 9), Steered(3))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 8),
    st.lists(st.integers(2, 9), min_size=3, max_size=3),
    st.sampled_from([(-1, -1), (4, 5), (16, -1)]),
    st.sampled_from(BLENDS),
)
def test_planes_equal_a_loop_over_volumes_and_planes(batch, planes, size, roi_size, blend):
    network = Steered()
    volumes, meta = torch.randn(batch, 1, *size), torch.randn(batch, 2)
    mixed, single = (SlidingWindowMetadataInferer(roi_size, n, blend=blend) for n in (3, 1))
    with torch.no_grad():
        out = PlaneInferer(mixed, planes)(volumes, network, meta=meta)
    alone = [one_by_one(single, plane, network, meta) for plane in volumes.unbind(-1)]
    torch.testing.assert_close(out, torch.stack(alone, dim=-1), atol=1e-5, rtol=0)


def test_planes_keep_the_form_of_the_output_and_leave_images_and_3d_networks_alone():
    def network(image):
        return {"pred": 2 * image, "more": image}

    volume = torch.rand(2, 1, 20, 13, 3)
    planes = PlaneInferer(SlidingWindowMetadataInferer((8, -1)))
    out = planes(volume, network)
    torch.testing.assert_close(out["pred"], 2 * volume)
    torch.testing.assert_close(out["more"], volume)
    torch.testing.assert_close(planes(volume[..., 0], network)["pred"], 2 * volume[..., 0])
    network = Steered(3)
    with torch.no_grad():
        whole = PlaneInferer(SlidingWindowMetadataInferer((-1, -1, -1)))(volume, network)
        torch.testing.assert_close(whole, network(volume))
    with pytest.raises(ConfigError, match="planes must be whole numbers, 1 or more"):
        PlaneInferer(SlidingWindowMetadataInferer(8), planes=0)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 200), st.integers(1, 12), st.integers(1, 8), st.integers(0, 20))
def test_kept_parts_cover_every_pixel_once(size, cells, align, margin):
    window = (cells - 1) * align + align + 2 * margin // align * align + 2 * align
    spans = tile_spans(size, window, margin, align)
    assert [span.kept.start for span in spans] == [0, *(span.kept.stop for span in spans[:-1])]
    assert spans[-1].kept.stop == spans[-1].seen.stop == size
    assert all(span.kept.start < span.kept.stop for span in spans)
    for span in spans:
        start, stop = span.seen.start, span.seen.stop
        assert start % align == 0
        assert stop == size or span.pixels == window
        assert span.pixels > min(window, size) - align
        assert start == 0 or span.kept.start - start >= margin
        assert stop == size or stop - span.kept.stop >= margin


def numbered(roi_size, pixels, **settings):
    """The number of the window that each pixel of a row comes from."""
    numbers = iter(range(99))
    inferer = SlidingWindowMetadataInferer((1, roi_size), 1, **settings)
    row = torch.zeros(1, 1, 1, pixels)
    return inferer(row, lambda window: torch.full_like(window, next(numbers))).flatten().tolist()


def test_windows_by_hand():
    """Windows of 6 at 0, 4 and 8 on 14 pixels, less margins of 1; of 4 at 0 and 2 on 6 pixels."""
    discarded = numbered(6, 14, blend="discard", margin_px=(0, 1))
    assert discarded == [0.0] * 5 + [1.0] * 4 + [2.0] * 5
    pyramid = numbered(4, 6, overlap=(0, 0.5), blend="pyramid")  # weights 1/4, 1/2, 1/2, 1/4
    assert pyramid == pytest.approx([0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0])


@pytest.mark.parametrize(("margin_px", "tiles"), [(None, 4), (0, 3)])
def test_margins_are_half_of_the_overlap_unless_given(margin_px, tiles):
    settings = {"overlap": 0.5, "blend": "discard", "margin_px": margin_px}
    assert max(numbered(8, 20, **settings)) + 1 == tiles  # None: a step of 8 - 2 * 2


@pytest.mark.parametrize("roi_size", [(8, 8), (-1, 8), 8])
def test_pyramid_is_blended_as_monai_blends_with_our_weights(roi_size):
    network, image = Steered(), torch.rand(2, 1, 13, 21)
    theirs = SlidingWindowInferer((13 if roi_size == (-1, 8) else 8, 8), 3)
    theirs.roi_weight_map = pyramid_weights(theirs.roi_size)
    with torch.no_grad():
        ours = SlidingWindowMetadataInferer(roi_size, 2, blend="pyramid")(image, network)
        torch.testing.assert_close(ours, theirs(image, network))


def unet(variant, levels, channels):
    """A network whose every weight and statistic counts, so that far pixels are felt."""
    torch.manual_seed(1)
    meta = 3 if reads_metadata(variant) else 0
    network = Unet3(variant=variant, meta_features=meta, channels=channels, levels=levels).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.02, 0.2)
    return network


def tiled_minus_untiled(network, size, roi_size, margin_px, align):
    like = next(network.parameters())
    metadata = {"meta": torch.rand(2, 3).to(like)} if network.meta_features else {}
    images = torch.rand(2, 1, *size).to(like)
    settings = {"blend": "discard", "margin_px": margin_px, "align": align}
    with torch.no_grad():
        untiled = network(images, **metadata)
        tiled = SlidingWindowMetadataInferer(roi_size, 2, **settings)(images, network, **metadata)
    return float((tiled - untiled).abs().max()), float(untiled.std())


@pytest.mark.parametrize("variant", ["none", "me", "film"])
@pytest.mark.parametrize(("levels", "size", "roi_size"), [(2, (131, 97), 96), (3, (203, 195), 192)])
def test_tiles_give_the_untiled_image_of_any_size(variant, levels, size, roi_size):
    """The sizes are no multiples of 2 ** levels: the last tile ends with the image, as pooling."""
    network, tiles = unet(variant, levels, channels=4), (size, roi_size, REACH[levels], 2**levels)
    difference, spread = tiled_minus_untiled(network, *tiles)
    assert difference <= 1e-5 * max(1, spread)
    exact, spread = tiled_minus_untiled(network.double(), *tiles)
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


def test_a_network_that_changes_the_size_is_refused():
    with pytest.raises(ConfigError, match="keeps the size"):
        SlidingWindowMetadataInferer(8, blend="discard")(torch.rand(1, 1, 9, 9), nn.MaxPool2d(2))


def test_each_form_of_output_is_kept_and_others_are_refused():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    nested = map_tensors(torch.neg, {"a": one, "b": (one, [two])})
    assert nested["b"][1][0].item() == -2
    assert [t.item() for t in each_tensor({"a": one, "b": [one, two]})] == [1, 1, 2]
    with pytest.raises(ConfigError, match="returned str"):
        map_tensors(torch.neg, {"a": "logits"})


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(
    ("size", "window", "overlap"), [(97, 16, 0.25), (130, 16, 0.6), (64, 32, 0)]
)
def test_bands_of_large_images_give_what_the_whole_image_gives(
    monkeypatch, blend, size, window, overlap
):
    torch.manual_seed(0)
    image, meta = torch.rand(1, 2, size, 41), torch.tensor([[2.0]])
    inferer = SlidingWindowMetadataInferer((window, window), 3, overlap, blend)
    ran = []

    def network(windows, meta):
        ran.append(len(windows))
        return torch.cat([windows.cumsum(2), windows.cumsum(3)], 1) * meta[:, :1, None, None]

    whole = inferer(image, network, meta)
    windows_of_whole = sum(ran)
    monkeypatch.setattr(sliding, "LARGE_PIXELS", 100)
    lazy = LazyTensor(lambda at: image[0][at].clone(), image.shape[1:])[None]
    for pixels in (image, lazy):
        ran.clear()
        found = inferer(pixels, network, meta)
        assert isinstance(found, LazyTensor) == (pixels is lazy)
        assert torch.equal(found, whole)
        assert sum(ran) == windows_of_whole, "a window was run twice"
        as_dict = inferer(pixels, lambda seen, meta: {"pred": network(seen, meta)}, meta)
        assert torch.equal(as_dict["pred"], whole)
        inferer.reduce = lambda logits: logits.argmax(1, keepdim=True)
        assert torch.equal(inferer(pixels, network, meta), whole.argmax(1, keepdim=True))
        inferer.reduce = None


def steps_at_joints(blend, **settings):
    """Steps across the borders of tiles by those elsewhere, of a network that feels the border."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 5, padding=2), nn.Softplus(), nn.Conv2d(4, 1, 5, padding=2)]
    network = nn.Sequential(*layers)
    nn.init.constant_(layers[0].bias, 2.0)  # so that zeros beyond a tile are felt
    image = torch.rand(1, 1, 96, 128)
    with torch.no_grad():
        inferer = SlidingWindowMetadataInferer((32, 32), 4, 0.5, blend, **settings)
        pred = inferer(image, network)[0, 0]
    steps = pred.diff(dim=1).abs().mean(dim=0)  # across each border of columns
    at = [place - 1 for place in range(16, 128, 16)]  # where tiles begin and end
    inside = [place for place in range(len(steps)) if place not in at]
    return float(steps[at].mean() / steps[inside].mean())


def test_pyramid_weights_leave_no_steps_at_the_borders_of_tiles():
    assert steps_at_joints("pyramid") <= 1.2
    assert steps_at_joints("constant") > 1.2


def test_an_image_is_continued_by_its_reflection_and_cut_again():
    image = torch.rand(2, 1, 9, 7)
    seen = []

    def network(windows):
        seen.append(windows.clone())  # what is returned is weighted in place
        return windows

    whole = SlidingWindowMetadataInferer((-1, -1), reflect_px=3)
    torch.testing.assert_close(whole(image, network), image)
    assert seen[0].shape == (2, 1, 15, 13)
    torch.testing.assert_close(seen[0][..., 2, 3:-3], image[..., 1, :])
    tiled = SlidingWindowMetadataInferer((8, 8), overlap=0.5, blend="pyramid", reflect_px=20)
    torch.testing.assert_close(tiled(image, network), image)  # by 8 and 6, as it has no more
    with pytest.raises(ConfigError, match="reflect_px must be whole numbers"):
        SlidingWindowMetadataInferer((8, 8), reflect_px=-1)
