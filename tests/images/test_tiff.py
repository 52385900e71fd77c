import importlib.util

import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image
from metaseg_monai.images.read import read_label
from metaseg_monai.images.tiff import tiff_pixel_um
from metaseg_monai.prepare.ome import read_ome

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


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize(
    "array",
    [
        ramp(20, 30),
        ramp(20, 30, dtype=np.uint16) * 100,
        ramp(20, 30, 3),
        ramp(20, 30, dtype=np.float32) / 7,
        ramp(20, 30) > 90,
    ],
)
def test_usual_compressions_are_exact(tmp_path, array, compression):
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(array).save(path, compression=compression)
    found = read_image(path).array
    np.testing.assert_array_equal(found, array[None] if array.ndim == 2 else array.T.swapaxes(1, 2))
    assert found.dtype == (bool if array.dtype == bool else array.dtype)


def test_compressed_palettes_pages_faxes_and_tiles(tmp_path):
    path = tmp_path / "a.tif"
    picture = PIL.Image.fromarray(ramp(20, 30) % 3, "P")
    picture.putpalette([0, 0, 0, 9, 8, 7, 250, 1, 2])
    picture.save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(path, palette="indices").array[0], ramp(20, 30) % 3)
    pages = [PIL.Image.fromarray(ramp(20, 30) + number) for number in range(4)]
    pages[0].save(path, compression="tiff_lzw", save_all=True, append_images=pages[1:])
    volume = read_image(path, spatial_dims=3).array
    for number in range(4):
        np.testing.assert_array_equal(volume[0, ..., number], ramp(20, 30) + number)
    bits = ramp(20, 30) > 90
    PIL.Image.fromarray(bits).save(path, compression="group4", tiffinfo={262: 1})
    assert read_image(path).array.mean() in (bits.mean(), 1 - bits.mean())


def test_min_is_white_is_read_alike_compressed_or_not(tmp_path):
    for name, mode in (("b", "1"), ("c", "L")):
        path = tmp_path / f"{name}.tif"
        shown = PIL.Image.fromarray(ramp(20, 30)).convert(mode)
        shown.save(path, compression="tiff_lzw", tiffinfo={262: 0})
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].photometric == 0
        plain = tmp_path / f"{name}_plain.tif"
        shown.save(plain, tiffinfo={262: 0})
        assert tifffile.imread(plain).shape == (20, 30)
        one, other = (read_image(file, palette="indices").array for file in (path, plain))
        np.testing.assert_array_equal(one, other)


def test_jpeg_in_tiff_is_an_image_and_no_label(tmp_path):
    path = tmp_path / "a.tif"
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    PIL.Image.fromarray(np.stack([smooth] * 3, -1)).save(path, compression="jpeg", quality=95)
    assert abs(read_image(path).array.astype(int) - smooth).max() < 8
    with pytest.raises(DataError, match=r"compression \(JPEG\) changes values"):
        read_label(path)


def test_other_compressions_name_what_to_install(tmp_path):
    path = written(tmp_path, ramp(20, 30), compression="zlib", metadata=None, **GREY)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["Compression"].valueoffset
    raw[place : place + 2] = (34712).to_bytes(2, "little")  # JPEG 2000
    path.write_bytes(raw)
    if importlib.util.find_spec("imagecodecs") is None:
        with pytest.raises(DataError, match=r'JPEG2000, which needs.*"metaseg-monai\[tiff\]"'):
            read_image(path)


def test_bombs_are_refused_from_the_header(tmp_path):
    path = tmp_path / "a.tif"
    nothing = np.broadcast_to(np.uint8(0), (40_000, 40_000))
    tiles = ((np.zeros((4096, 4096), np.uint8)) for _ in range(100))
    tifffile.imwrite(
        path,
        tiles,
        shape=nothing.shape,
        dtype=np.uint8,
        tile=(4096, 4096),
        compression="zlib",
        **GREY,
    )
    with pytest.raises(DataError, match=r"bytes announce 1525 MiB, more than 500 times"):
        read_image(path)
    with tifffile.TiffWriter(path) as writer:
        page = np.zeros((6000, 6000), np.uint8)
        for _ in range(16):
            writer.write(page, compression="zlib", contiguous=False, metadata=None, **GREY)
    with pytest.raises(DataError, match=r"announce 549 MiB"):
        read_image(path, spatial_dims=3)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_an_empty_file_is_told_as_empty(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"is empty \(0 bytes\); copy it anew"):
        read_image(tmp_path / name)


def test_a_wrong_name_is_told_by_the_true_format(tmp_path):
    for suffix, other in ((".tif", "png"), (".png", "tiff"), (".jpg", "png"), (".tif", "jpeg")):
        path = tmp_path / f"a{suffix}"
        PIL.Image.fromarray(ramp(20, 30)).save(path, format=other)
        with pytest.raises(DataError, match=r"begins as a file \.(png|tif|jpg) does"):
            read_image(path)
    for name, step in (("a.hdr", "pair"), ("b.dcm", "folder of the series"), ("c.webp", "PNG")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match=f"unsupported file type; .*{step}"):
            read_image(tmp_path / name)


PIXELS = np.zeros((4, 6), np.uint16)


def sized(path, **settings):
    tifffile.imwrite(path, PIXELS, photometric="minisblack", **settings)
    return path


def ome(tmp_path, **described):
    return sized(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "YX", **described})


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [(0.65, "µm", 0.65), (650, "nm", 0.65), (0.00065, "mm", 0.65), (0.65, "pixel", None)],
)
def test_ome_units_become_micrometres(tmp_path, size, unit, expected):
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    file = ome(tmp_path, PhysicalSizeX=size, PhysicalSizeY=size, **units)
    assert tiff_pixel_um(file) == (expected if expected is None else pytest.approx(expected))


def test_what_is_not_told_or_not_square_is_unknown(tmp_path):
    assert tiff_pixel_um(ome(tmp_path)) is None
    assert tiff_pixel_um(ome(tmp_path, PhysicalSizeX=0.5)) is None
    assert tiff_pixel_um(ome(tmp_path, PhysicalSizeX=0.5, PhysicalSizeY=0.6)) is None
    assert tiff_pixel_um(sized(tmp_path / "b.tif")) is None


def test_imagej_and_centimetres_tell_and_a_screen_does_not(tmp_path):
    imagej = {"imagej": True, "resolution": (2, 2)}
    for unit, expected in (("um", 0.5), ("micron", 0.5), ("nm", 0.0005), ("pixel", None)):
        assert tiff_pixel_um(sized(tmp_path / "c.tif", **imagej, metadata={"unit": unit})) == (
            expected
        )
    for unit, value, expected in (
        ("CENTIMETER", 20000, 0.5),
        ("CENTIMETER", 28.346, None),  # 72 per inch
        ("INCH", 72, None),
        ("INCH", 50800, None),
        ("NONE", 1, None),
    ):
        file = sized(tmp_path / "d.tif", resolution=(value, value), resolutionunit=unit)
        assert tiff_pixel_um(file) == expected


def test_a_file_that_could_make_a_parser_run_away_tells_nothing(tmp_path):
    text = (
        '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "0.5">]>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels PhysicalSizeX="&a;" PhysicalSizeY="&a;"/></Image></OME>'
    )
    file = sized(tmp_path / "e.tif", description=text, metadata=None)
    with tifffile.TiffFile(file) as stored:
        assert stored.is_ome
    assert tiff_pixel_um(file) is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "f.tif").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"f\.tif: its header cannot be read"):
        tiff_pixel_um(tmp_path / "f.tif")


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("micron", 2, "0.5"),
        ("um", 2, "0.5"),
        ("\\u00B5m", 4, "0.25"),
        ("inch", 50800, "0.5"),
        ("inch", 72, ""),
        ("cm", 20000, "0.5"),
        ("pixel", 1, ""),
        (None, 2, ""),
    ],
)
def test_prepare_and_predict_read_imagej_sizes_alike(tmp_path, unit, per_unit, expected):
    metadata = {"axes": "YX", **({"unit": unit} if unit else {})}
    path = sized(tmp_path / "i.tif", imagej=True, resolution=(per_unit,) * 2, metadata=metadata)
    assert read_ome([path])["pixel_um"] == expected
    assert tiff_pixel_um(path) == (pytest.approx(float(expected)) if expected else None)


def test_pixels_of_imagej_that_are_no_squares_are_refused_where_they_are_asked_for(tmp_path):
    metadata = {"axes": "YX", "unit": "micron"}
    path = sized(tmp_path / "i.tif", imagej=True, resolution=(2, 4), metadata=metadata)
    with pytest.raises(DataError, match=r"0\.5 x 0\.25 micrometres, expected squares"):
        read_ome([path])
    assert tiff_pixel_um(path) is None
