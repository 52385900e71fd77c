"""Large images taken in parts: the same values as at once, whatever is done with them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from monai.transforms import Compose

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import SaveMasks
from metaseg_monai.images import read_image, tiff, write_mask
from metaseg_monai.images.image import convert_channels
from metaseg_monai.images.lazy import LazyTensor, at_hand, every_nth
from metaseg_monai.inferers import SlidingWindowMetadataInferer, sliding
from metaseg_monai.metrics import calibration
from metaseg_monai.tables import check
from metaseg_monai.training import SiftedDataset, collate_cases
from metaseg_monai.transforms import LoadCased, ScaleIntensityCased
from metaseg_monai.transforms.postprocessing import AsMaskd, class_map

VALUES = torch.arange(2 * 9 * 7, dtype=torch.float32).reshape(2, 9, 7)


@pytest.fixture
def lazy():
    """A tensor (2, 9, 7) of which each part that is made is noted."""
    made = []

    def read(at):
        made.append(VALUES[at].numel())
        return VALUES[at].clone()

    tensor = LazyTensor(read, VALUES.shape)
    return tensor, made


@pytest.mark.parametrize(
    "index",
    [
        0,
        (slice(None), slice(2, 5)),
        (1, slice(3, 4), slice(1, 6)),
        (..., 3),
        (slice(None), -1),
        (slice(0, 1), slice(None), slice(2, 2)),
        (slice(None), slice(1, None, 3), slice(None, None, 2)),
        (None, slice(None), slice(4, 6)),
        [1, 0],
        torch.tensor([True, False]),
    ],
)
def test_a_part_is_that_of_the_plain_tensor(lazy, index):
    tensor, made = lazy
    part, expected = tensor[index], VALUES[index]
    assert part.shape == expected.shape
    assert torch.equal(at_hand(part), expected)
    if not isinstance(index, list | torch.Tensor):
        assert sum(made) < 126 or part.shape[-1] == 0, "all of it was read"


def test_slices_of_slices_and_of_batches_stay_lazy(lazy):
    tensor, made = lazy
    batch = tensor[None]
    part = batch[0][1:, 2:8][:, 1:3, 2:].to("cpu").detach()
    assert isinstance(part, LazyTensor)
    assert not made
    assert (len(batch), batch.ndim, part.numel()) == (1, 4, 1 * 2 * 5)
    assert torch.equal(part + 0, VALUES[1:, 3:5, 2:])
    assert made == [10]
    assert torch.equal(torch.cat([batch, batch])[1], VALUES)
    assert np.array_equal(np.asarray(tensor), VALUES.numpy())
    assert float(tensor.max()) == 125
    halved = tensor[:, 2:].mapped(lambda one: one / 2)
    assert torch.equal(halved[0, 1:3].sqrt(), (VALUES / 2)[0, 3:5].sqrt())


@pytest.mark.parametrize(
    "change", [lambda one: one.mul_(2), lambda one: one.__setitem__(0, 1), lambda one: one.zero_()]
)
def test_no_value_is_changed_in_place(lazy, change):
    with pytest.raises(TypeError, match="at_hand"):
        change(lazy[0])


def test_a_network_of_two_outputs_gets_plain_windows(monkeypatch):
    image = torch.rand(1, 1, 24, 20)
    lazy = LazyTensor(lambda at: image[0][at].clone(), image.shape[1:])[None]
    monkeypatch.setattr("metaseg_monai.inferers.sliding.LARGE_PIXELS", 100)

    def network(windows):
        assert not isinstance(windows, LazyTensor)
        return windows + 1, windows - 1

    inferer = SlidingWindowMetadataInferer(roi_size=16, sw_batch_size=1, blend="constant")
    for found, step in zip(inferer(lazy, network), (1, -1), strict=True):
        assert torch.allclose(found, image + step)


@pytest.mark.parametrize("axes", ["YX", "YXS", "SYX"])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("form", [{}, {"compression": "zlib"}, {"byteorder": ">"}])
def test_a_tiff_read_by_parts_is_the_tiff(tmp_path, monkeypatch, axes, layout, form):
    monkeypatch.setattr(tiff, "LARGE_PIXELS", 100)
    shape = {"YX": (101, 70), "YXS": (101, 70, 3), "SYX": (3, 101, 70)}[axes]
    pixels = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    told = {"photometric": "minisblack" if axes == "YX" else "rgb"}
    told |= {"planarconfig": "separate"} if axes == "SYX" else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **told, **layout, **form)
    whole = read_image(tmp_path / "a.tif")
    parts = read_image(tmp_path / "a.tif", lazily=True)
    assert isinstance(parts.array, tiff.TiffPixels)
    assert parts.attributes == whole.attributes
    assert parts.array.dtype == whole.array.dtype
    channels = slice(0, whole.array.shape[0])
    for rows, columns in [((0, 101), (0, 70)), ((30, 65), (40, 70)), ((100, 101), (0, 1))]:
        place = (channels, slice(*rows), slice(*columns))
        assert np.array_equal(parts.array[place], whole.array[place])


def test_damage_in_a_tile_is_found_when_the_image_is_loaded(tmp_path, monkeypatch):
    for module in (tiff, check):
        monkeypatch.setattr(module, "LARGE_PIXELS", 100)
    file = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    tifffile.imwrite(file, pixels, tile=(16, 16), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(file) as opened:
        offset = opened.pages[0].dataoffsets[9]
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\0" * 20)
    loader = LoadCased()
    loader.lazily = True
    with pytest.raises(DataError, match=r"a\.tif"):
        loader({"case": "a", "image": str(file)})


@pytest.mark.parametrize("suffix", [".tif", ".png", ".nii.gz"])
@pytest.mark.parametrize("channels", ["stored", "grey", "rgb"])
def test_a_large_image_is_loaded_as_a_small_one_is(tmp_path, monkeypatch, suffix, channels):
    pixels = np.random.default_rng(1).integers(0, 255, (61, 43, 3)).astype(np.uint8)
    pixels = pixels[..., 0] if suffix == ".nii.gz" else pixels
    file = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(file, pixels, tile=(16, 16), photometric="rgb")
    elif suffix == ".png":
        PIL.Image.fromarray(pixels).save(file)
    else:
        write_mask(pixels, file, {"format": "nifti", "affine": np.eye(4), "header": None})
    items = [{"case": "a", "image": str(file)}]
    chain = [LoadCased(channels), ScaleIntensityCased([0, 255])]
    small = collate_cases([SiftedDataset(items, chain)[0]])["image"]
    for module in (tiff, check):
        monkeypatch.setattr(module, "LARGE_PIXELS", 100)
    large = collate_cases([SiftedDataset(items, chain)[0]])["image"]
    assert isinstance(large, LazyTensor)
    assert not isinstance(small, LazyTensor)
    assert torch.equal(at_hand(large), small)
    assert torch.equal(large[:, :, 5:9, 3:], small[:, :, 5:9, 3:])
    # another transform sees an ordinary tensor
    other = SiftedDataset(items, [*chain, lambda item: {**item, "image": item["image"] * 2}])
    assert torch.equal(other[0]["image"].as_tensor(), small[0] * 2)


def test_what_is_measured_of_a_lazy_prediction_is_that_of_the_plain_one(monkeypatch):
    logits = torch.randn(3, 50, 40, generator=torch.Generator().manual_seed(0))
    label = torch.randint(0, 3, (1, 50, 40), generator=torch.Generator().manual_seed(1))
    lazy = LazyTensor(lambda at: logits[at].clone(), logits.shape)
    monkeypatch.setattr(calibration, "PIXELS_AT_ONCE", 333)
    bins = [calibration.bin_probabilities(one[None], label) for one in (logits, lazy)]
    assert torch.equal(*bins)
    assert np.array_equal(class_map(lazy), class_map(logits))
    assert np.array_equal(every_nth(lazy, 7), logits[:, ::7, ::7].numpy())


def test_grey_of_colours_is_their_luma():
    colours = np.random.default_rng(0).integers(0, 65536, (3, 90, 50)).astype(np.uint16)
    told = np.tensordot((0.299, 0.587, 0.114), colours.astype(np.float64), axes=1)
    assert np.array_equal(convert_channels(colours, "grey")[0], told.astype(np.float32))


def test_a_mask_written_by_rows_is_the_same_file(tmp_path):
    mask = (np.random.default_rng(0).random((700, 900)) < 0.1).astype(np.uint8)
    like = {"format": "tiff", "spatial_shape": mask.shape}
    whole = write_mask(mask, tmp_path / "whole.tif", like)
    stored = torch.from_numpy(mask)[None]
    lazy = LazyTensor(lambda at: stored[at], stored.shape, torch.uint8)
    rows = write_mask(lazy[0], tmp_path / "rows.tif", like)
    assert rows.read_bytes() == whole.read_bytes()


def test_an_inferer_gives_a_lazy_output_for_a_lazy_image_only(monkeypatch):
    image = torch.rand(1, 1, 40, 30)
    lazy = LazyTensor(lambda at: image[0][at].clone(), image.shape[1:])[None]
    monkeypatch.setattr("metaseg_monai.inferers.sliding.LARGE_PIXELS", 100)
    inferer = SlidingWindowMetadataInferer((16, 16))
    found = inferer(lazy, lambda windows: windows * 2)
    assert isinstance(found, LazyTensor)
    assert torch.equal(
        at_hand(found[:, :, 9:21]), inferer(image, lambda windows: windows * 2)[:, :, 9:21]
    )


def test_the_output_on_disk_is_on_the_device_of_the_network():
    output = sliding._Spool(torch.empty(1, 1, 3, 4, dtype=torch.uint8, device="meta"), 9).tensor()
    assert output.shape == (1, 1, 9, 4)
    assert output[:, :, 2:5].device.type == "meta"  # as that of a label
    masks = SimpleNamespace(postprocessing=Compose([AsMaskd()]))
    mask = SaveMasks._mask(masks, {"pred": output[0]})
    assert isinstance(mask, LazyTensor)
    assert mask.device.type == "cpu"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_for_temporary_files_is_told_as_such():
    band = torch.zeros(1, 2, 4, 6)
    spool = sliding._Spool(band, 8)
    with (
        Path("/dev/full").open("wb", buffering=0) as spool.file,
        pytest.raises(OSError, match=r"No space left.*TMPDIR"),
    ):
        spool[:, :, slice(0, 4)] = band
