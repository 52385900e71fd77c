import importlib.util

import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image

GREY = {"photometric": "minisblack"}


def ramp(*shape, dtype=np.uint8):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def written(tmp_path, array, **options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (ramp(20, 30) + np.uint32(2**32 - 700), GREY),
        (ramp(20, 30, dtype=np.int16) - 300, GREY),
        (ramp(20, 30, dtype=np.float32) / 7, GREY),
        (ramp(20, 30), {"compression": "zlib", **GREY}),
        (ramp(20, 30).astype(">u2"), {"byteorder": ">", **GREY}),
    ],
)
def test_grey_pixels_and_rows_are_exact(tmp_path, array, options):
    image = read_image(written(tmp_path, array, **options))
    assert image.array.shape == (1, 20, 30)  # H x W, never transposed
    assert image.array.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(image.array[0], array)
    assert image.attributes["format"] == "tiff"
    assert image.attributes["axes"] == "YX"
    assert image.attributes["spatial_shape"] == (20, 30)


def test_rgb_of_16_bit_is_exact_in_both_layouts(tmp_path):
    array = ramp(20, 30, 3, dtype=np.uint16) * 36
    interleaved = read_image(written(tmp_path, array, photometric="rgb")).array
    planar = read_image(
        written(tmp_path, array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    ).array
    assert interleaved.dtype == np.uint16
    np.testing.assert_array_equal(interleaved, array.transpose(2, 0, 1))
    np.testing.assert_array_equal(planar, interleaved)


def test_named_channel_pages_become_channels(tmp_path):
    array = ramp(2, 20, 30)
    path = written(tmp_path, array, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_image(path).array, array)


def test_min_is_white_is_inverted_back(tmp_path):
    array = ramp(20, 30)
    image = read_image(written(tmp_path, array, photometric="miniswhite")).array
    np.testing.assert_array_equal(image[0], 255 - array)


def test_one_bit_min_is_white_is_refused_as_ambiguous(tmp_path):
    path = written(tmp_path, ramp(20, 30) > 100, photometric="miniswhite")
    with pytest.raises(DataError, match="ambiguous"):
        read_image(path)


def test_palette_gives_colours_or_indices(tmp_path):
    indices = ramp(20, 30) % 4
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 3] = 65535, 300, 7
    path = written(tmp_path, indices, photometric="palette", colormap=colours)
    image = read_image(path).array
    np.testing.assert_array_equal(image, colours[:, indices])
    np.testing.assert_array_equal(read_image(path, palette="indices").array[0], indices)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", None])
def test_stack_is_refused_as_2d_with_axes_and_next_step(tmp_path, axes):
    path = written(tmp_path, ramp(5, 20, 30), metadata={"axes": axes} if axes else {}, **GREY)
    with pytest.raises(DataError, match=rf"{axes or 'QYX'} \(5, 20, 30\).*spatial_dims=3"):
        read_image(path)


@pytest.mark.parametrize("axes", ["ZYX", None])
def test_stack_is_a_volume_where_asked_for(tmp_path, axes):
    array = ramp(5, 20, 30)
    path = written(tmp_path, array, metadata={"axes": axes} if axes else {}, **GREY)
    volume = read_image(path, spatial_dims=3).array
    assert volume.shape == (1, 20, 30, 5)
    np.testing.assert_array_equal(volume[0, :, :, 3], array[3])


def test_time_is_no_depth_unless_named_so(tmp_path):
    path = written(tmp_path, ramp(5, 20, 30), metadata={"axes": "TYX"}, **GREY)
    with pytest.raises(DataError, match="TYX"):
        read_image(path, spatial_dims=3)
    assert read_image(path, spatial_dims=3, axes="ZYX").array.shape == (1, 20, 30, 5)


def test_channels_and_depth(tmp_path):
    array = ramp(2, 5, 20, 30)
    path = written(tmp_path, array, metadata={"axes": "CZYX"}, **GREY)
    with pytest.raises(DataError, match="CZYX"):
        read_image(path)
    volume = read_image(path, spatial_dims=3).array
    assert volume.shape == (2, 20, 30, 5)
    np.testing.assert_array_equal(volume[1, :, :, 4], array[1, 4])


def test_axes_override_makes_pages_channels(tmp_path):
    array = ramp(5, 20, 30)
    path = written(tmp_path, array, **GREY)
    np.testing.assert_array_equal(read_image(path, axes="CYX").array, array)
    with pytest.raises(DataError, match="names 2 axes, but the file has 3"):
        read_image(path, axes="YX")


def test_one_page_stack_is_one_image(tmp_path):
    assert read_image(written(tmp_path, ramp(1, 20, 30), **GREY)).array.shape == (1, 20, 30)


def test_several_images_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(ramp(20, 30))
        writer.write(ramp(10, 10, dtype=np.uint16))
    with pytest.raises(DataError, match="2 separate images"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("cut", [1, 60, 300, 590])
def test_truncation_is_named(tmp_path, cut):
    path = written(tmp_path, ramp(20, 30), **GREY)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"a\.tif"):
        read_image(path)


def test_lost_last_page_is_not_silent(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(2):
            writer.write(ramp(20, 30), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as file:
        end_of_first = file.pages[1].offset
    path.write_bytes(path.read_bytes()[:end_of_first])  # the first page is whole
    with pytest.raises(DataError, match="invalid page offset"):
        read_image(path)


def test_pixels_that_were_never_written_are_not_zeros(tmp_path):
    path = written(tmp_path, ramp(20, 30), compression="zlib", metadata=None, **GREY)
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["StripByteCounts"].valueoffset
    raw = bytearray(path.read_bytes())
    raw[place : place + 2] = bytes(2)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="page 0 misses pixel data"):
        read_image(path)


def test_every_bit_flip_in_a_deflated_tiff_is_read_alike_or_refused(tmp_path):
    path = written(tmp_path, ramp(20, 30), compression="zlib", metadata=None, **GREY)
    good, raw = read_image(path).array, path.read_bytes()
    with tifffile.TiffFile(path) as file:
        start, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    for position in range(start, start + count):
        damaged = bytearray(raw)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        try:
            came = read_image(path).array
        except DataError:
            continue
        np.testing.assert_array_equal(came, good)


def test_compression_without_decoder_names_what_to_install(tmp_path):
    PIL.Image.fromarray(ramp(20, 30)).save(tmp_path / "a.tif", compression="tiff_lzw")
    if importlib.util.find_spec("imagecodecs"):
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0], ramp(20, 30))
    else:
        with pytest.raises(DataError, match="install imagecodecs"):
            read_image(tmp_path / "a.tif")
