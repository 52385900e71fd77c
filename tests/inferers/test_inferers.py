import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.inferers import SliceMetadataInferer, SlidingWindowMetadataInferer


class Steered(nn.Module):
    """A convolution scaled and shifted by metadata; counts its calls."""

    def __init__(self, spatial_dims):
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


@st.composite
def window_cases(draw):
    dims = draw(st.sampled_from([2, 3]))
    size, roi = ((3, 41), (4, 24)) if dims == 2 else ((2, 13), (3, 8))
    return {
        "dims": dims,
        "batch": draw(st.integers(1, 4)),
        "sw_batch_size": draw(st.integers(1, 8)),
        "size": [draw(st.integers(*size)) for _ in range(dims)],
        "roi_size": [draw(st.integers(*roi) | st.just(-1)) for _ in range(dims)],
        "overlap": draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7])),
        "blend": draw(st.sampled_from(["gaussian", "constant"])),
        "buffer_steps": draw(st.sampled_from([None, None, 1, 2, 3])),
        "buffer_dim": draw(st.integers(-dims, dims - 1)),
        "seed": draw(st.integers(0, 1000)),
    }


def largest_difference(case):
    """Run a batch with windows mixed, and each image alone by MONAI; compare."""
    network = Steered(case["dims"])
    torch.manual_seed(case["seed"])
    images = torch.randn(case["batch"], 1, *case["size"])
    meta = torch.randn(case["batch"], 2) * 3
    common = {key: case[key] for key in ("roi_size", "overlap")}
    inferer = SlidingWindowMetadataInferer(
        sw_batch_size=case["sw_batch_size"],
        buffer_steps=case["buffer_steps"],
        buffer_dim=case["buffer_dim"],
        blend=case["blend"],
        **common,
    )
    alone = SlidingWindowInferer(sw_batch_size=1, mode=case["blend"], **common)
    with torch.no_grad():
        mixed = inferer(images, network, meta=meta)
        expected = torch.cat(
            [
                alone(images[i : i + 1], lambda window, i=i: network(window, meta[i : i + 1]))
                for i in range(case["batch"])
            ]
        )
    assert mixed.shape == (case["batch"], 2, *case["size"])
    return float((mixed - expected).abs().max())


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


def test_rows_follow_their_images_when_permuted():
    network, order = Steered(2), torch.tensor([2, 0, 1])
    images, meta = torch.randn(3, 1, 21, 13), torch.randn(3, 2)
    inferer = SlidingWindowMetadataInferer(8, sw_batch_size=5)
    with torch.no_grad():
        straight = inferer(images, network, meta=meta)
        permuted = inferer(images[order], network, meta=meta[order])
    torch.testing.assert_close(permuted, straight[order])


@pytest.mark.parametrize("size", [(10, 13), (33, 47), (97, 17), (1, 1)])
def test_size_is_kept_also_where_the_window_is_larger(size):
    out = SlidingWindowMetadataInferer(32)(
        torch.randn(2, 1, *size), Steered(2), meta=torch.ones(2, 2)
    )
    assert out.shape == (2, 2, *size)


def test_without_meta_the_network_gets_the_image_alone():
    def network(*args, **kwargs):
        assert len(args) == 1
        assert kwargs == {}
        return args[0]

    image = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(SlidingWindowMetadataInferer(4)(image, network), image)


def test_several_outputs_keep_their_form_and_meta_tensors_are_taken():
    def network(image, meta):
        return {"pred": image * meta[:, :1, None, None], "aux": image}

    image, meta = MetaTensor(torch.ones(2, 1, 9, 9)), MetaTensor(torch.tensor([[2.0], [3.0]]))
    out = SlidingWindowMetadataInferer(4)(image, network, meta=meta)
    assert set(out) == {"pred", "aux"}
    assert torch.as_tensor(out["pred"]).mean(dim=(1, 2, 3)).tolist() == pytest.approx([2.0, 3.0])


@pytest.mark.parametrize("meta", [torch.ones(1, 2), torch.ones(5, 2), torch.ones(4), torch.ones(2)])
@pytest.mark.parametrize(
    ("inferer", "size"),
    [
        (SlidingWindowMetadataInferer((4, 4)), (9, 9)),
        (SliceMetadataInferer((4, 4)), (9, 9, 3)),
    ],
)
def test_wrong_rows_of_meta_raise_before_any_window_is_run(inferer, size, meta):
    network = Steered(2)
    with pytest.raises(MetadataError, match="expected 4 rows"):
        inferer(torch.ones(4, 1, *size), network, meta=meta)
    assert network.calls == 0


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="metadata"):
        SlidingWindowMetadataInferer(4)(torch.ones(1, 1, 9, 9), Steered(2), metadata=1)
    with pytest.raises(TypeError, match="metadata"):
        SliceMetadataInferer((4, 4))(torch.ones(1, 1, 9, 9, 2), Steered(2), metadata=1)
    with pytest.raises(TypeError, match="with_coord"):
        SlidingWindowMetadataInferer(4, with_coord=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roi_size": 2.5}, "roi_size"),
        ({"roi_size": 4, "sw_batch_size": 0}, "sw_batch_size"),
        ({"roi_size": 4, "overlap": 1.0}, "overlap"),
        ({"roi_size": 4, "overlap": (0.5, -0.1)}, "overlap"),
        ({"roi_size": 4, "blend": "cubic"}, "blend"),
        ({"roi_size": 4, "padding_mode": "reflect"}, "padding_mode"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SlidingWindowMetadataInferer(**arguments)


def test_images_of_other_axes_are_refused():
    with pytest.raises(DataError, match="2 spatial axes"):
        SlidingWindowMetadataInferer((4, 4))(torch.ones(1, 1, 9, 9, 9), Steered(3))
    with pytest.raises(DataError, match="3 spatial axes"):
        SliceMetadataInferer((4, 4))(torch.ones(1, 1, 9, 9), Steered(2))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 8),
    st.lists(st.integers(2, 9), min_size=3, max_size=3),
    st.sampled_from([(-1, -1), (4, 5), (16, -1)]),
)
def test_slices_equal_a_loop_over_volumes_and_slices(axis, batch, sw_batch_size, size, roi_size):
    network = Steered(2)
    volumes, meta = torch.randn(batch, 1, *size), torch.randn(batch, 2)
    alone = SlidingWindowInferer(roi_size, sw_batch_size=1, mode="gaussian")
    inferer = SliceMetadataInferer(roi_size, spatial_dim=axis, sw_batch_size=sw_batch_size)
    with torch.no_grad():
        out = inferer(volumes, network, meta=meta)
        expected = torch.stack(
            [
                torch.cat(
                    [
                        alone(one[i : i + 1], lambda w, i=i: network(w, meta[i : i + 1]))
                        for i in range(batch)
                    ]
                )
                for one in volumes.unbind(axis + 2)
            ],
            dim=axis + 2,
        )
    assert out.shape == (batch, 2, *size)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_slices_run_without_meta():
    network, volumes = Steered(2), torch.randn(2, 1, 7, 6, 3)
    with torch.no_grad():
        out = SliceMetadataInferer((-1, -1))(volumes, network)
        expected = torch.stack([network(one) for one in volumes.unbind(4)], dim=4)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"roi_size": (4, 4, 4)}, "two numbers"), ({"roi_size": (4, 4), "spatial_dim": 3}, "0, 1")],
)
def test_slice_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SliceMetadataInferer(**arguments)
