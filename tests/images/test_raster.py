import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image
from metaseg_monai.images.read import read_header

GREY = np.arange(600, dtype=np.uint8).reshape(20, 30)
COLOUR = np.stack([GREY, GREY[::-1], GREY // 2], axis=-1)


def saved(path, array, **options):
    PIL.Image.fromarray(array).save(path, **options)
    return path


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(path, bits, colour_type, rows, extra=b""):
    """A PNG made by hand: rows are bytes that begin with the filter number."""
    header = struct.pack(">IIBBBBB", 4, len(rows), bits, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(b"".join(rows)))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))
    return path


def test_png_grey_rgb_and_rgba_keep_rows_and_values(tmp_path):
    grey = read_image(saved(tmp_path / "a.png", GREY))
    assert grey.array.shape == (1, 20, 30)
    np.testing.assert_array_equal(grey.array[0], GREY)
    assert (grey.attributes["format"], grey.attributes["axes"]) == ("png", "YX")
    rgba = np.concatenate([COLOUR, GREY[..., None]], axis=-1)
    for array in (COLOUR, rgba):
        image = read_image(saved(tmp_path / "a.png", array)).array
        np.testing.assert_array_equal(image, array.transpose(2, 0, 1))


def test_png_16_bit_grey_is_exact(tmp_path):
    array = GREY.astype(np.uint16) * 257 + 3
    image = read_image(saved(tmp_path / "a.png", array)).array
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[0], array)


def test_png_16_bit_colour_is_refused_not_reduced(tmp_path):
    path = raw_png(tmp_path / "a.png", 16, 2, [b"\0" + bytes(range(24))])
    with pytest.raises(DataError, match=r"16-bit colour.*TIFF"):
        read_image(path)


@pytest.mark.parametrize(
    ("bits", "row", "values"),
    [
        (1, b"\0\xa0", [1, 0, 1, 0]),
        (2, b"\0\x1b", [0, 1, 2, 3]),
        (4, b"\0\x12\xef", [1, 2, 14, 15]),
    ],
)
def test_png_of_few_bits_is_not_stretched(tmp_path, bits, row, values):
    assert read_image(raw_png(tmp_path / "a.png", bits, 0, [row])).array.tolist() == [[values]]


def test_png_palette_gives_colours_or_indices(tmp_path):
    palette = chunk(b"PLTE", bytes([0, 0, 0, 9, 8, 7, 250, 1, 2]))
    path = raw_png(tmp_path / "a.png", 8, 3, [b"\0" + bytes([0, 1, 2, 1])], palette)
    assert read_image(path).array[:, 0].T.tolist() == [[0, 0, 0], [9, 8, 7], [250, 1, 2], [9, 8, 7]]
    assert read_image(path, palette="indices").array.tolist() == [[[0, 1, 2, 1]]]


def test_animated_png_is_refused(tmp_path):
    frames = [PIL.Image.fromarray(GREY), PIL.Image.fromarray(GREY[::-1])]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animation of 2 frames"):
        read_image(tmp_path / "a.png")


def test_jpeg_keeps_rows(tmp_path):
    array = np.zeros((20, 30), np.uint8)
    array[:, 20:] = 200  # right third bright
    image = read_image(saved(tmp_path / "a.jpg", array, quality=95)).array
    assert image.shape == (1, 20, 30)
    assert image[0, :, 24:].mean() > 190
    assert image[0, :, :16].mean() < 10


def test_bombs_are_refused_from_the_header(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(DataError, match=r"bytes announce 3433 MiB, more than 500 times"):
        read_image(tmp_path / "a.png")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)  # 429 MiB of 1 bit: no bomb
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_header(tmp_path / "b.png")["spatial_shape"] == (60_000, 60_000)
    raw = bytearray(saved(tmp_path / "a.jpg", GREY).read_bytes())
    place = raw.index(b"\xff\xc0") + 5
    raw[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "a.jpg").write_bytes(raw)
    with pytest.raises(DataError, match=r"bytes announce 4029 MiB"):
        read_image(tmp_path / "a.jpg")


def test_cmyk_and_a_wrong_name_are_refused(tmp_path):
    PIL.Image.new("CMYK", (30, 20)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="CMYK"):
        read_image(tmp_path / "a.jpg")
    saved(tmp_path / "b.png", GREY).rename(tmp_path / "b.jpg")
    with pytest.raises(DataError, match=r"b\.jpg"):
        read_image(tmp_path / "b.jpg")
