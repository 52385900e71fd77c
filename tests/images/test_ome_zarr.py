"""OME-Zarr as plates and images, written here as the format's versions lay them out."""

import json
import sys
import zlib

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.object_table import pixel_size_um
from metaseg_monai.files import content_sha256
from metaseg_monai.images import read_image, write_mask
from metaseg_monai.images.read import read_header
from metaseg_monai.tables import find_cases
from tests.extras import needs

needs_zarr = needs("zarr")
CZYX = [
    {"name": "c", "type": "channel"},
    *({"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"),
]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def image(folder, values, axes=CZYX, scale=(1, 2, 0.5, 0.5), chunk=4):
    """An image of version 0.4, with one resolution, its chunks compressed by zlib."""
    write(folder / ".zgroup", {"zarr_format": 2})
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
    write(
        folder / ".zattrs", {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [level]}]}
    )
    chunks = [1] * (values.ndim - 2) + [chunk, chunk]
    header = {"zarr_format": 2, "shape": values.shape, "chunks": chunks, "dtype": values.dtype.str}
    header |= {"compressor": {"id": "zlib", "level": 1}, "fill_value": 0, "order": "C"}
    write(folder / "0" / ".zarray", {**header, "filters": None})
    for place in np.ndindex(
        *(-(-size // part) for size, part in zip(values.shape, chunks, strict=True))
    ):
        part = values[tuple(slice(at * n, at * n + n) for at, n in zip(place, chunks, strict=True))]
        whole = np.zeros(chunks, values.dtype)
        whole[tuple(slice(size) for size in part.shape)] = part
        (folder / "0" / ".".join(map(str, place))).write_bytes(zlib.compress(whole.tobytes()))
    return folder


@pytest.fixture
def plate(tmp_path):
    """A plate of two wells with two and one images (C 1, H 6, W 5)."""
    folder = tmp_path / "plates" / "day1.zarr"
    wells = {"A/01": 2, "B/03": 1}
    write(folder / ".zgroup", {"zarr_format": 2})
    told = {"wells": [{"path": well} for well in wells], "rows": [], "columns": []}
    write(folder / ".zattrs", {"plate": told})
    for well, count in wells.items():
        write(folder / well / ".zgroup", {"zarr_format": 2})
        names = [{"path": str(number)} for number in range(count)]
        write(folder / well / ".zattrs", {"well": {"images": names}})
        for number in range(count):
            values = np.arange(30, dtype=np.uint16).reshape(1, 1, 6, 5) + 100 * number
            image(folder / well / str(number), values)
    return folder


def test_the_images_of_a_plate_are_cases_with_plate_and_well(plate):
    items = find_cases(plate.parent)
    assert [item["case"] for item in items] == [
        "day1.zarr_A_01_0", "day1.zarr_A_01_1", "day1.zarr_B_03_0",
    ]  # fmt: skip
    assert items[2]["columns"] == {"plate": "day1", "well": "B/03"}
    assert [item["group"] for item in items] == ["day1/A/01", "day1/A/01", "day1/B/03"]
    assert [item["case"] for item in find_cases(plate)] == ["A_01_0", "A_01_1", "B_03_0"]
    assert [item["case"] for item in find_cases(plate / "B/03/0")] == ["0"]
    header = read_header(items[0]["image"])
    assert header["spatial_shape"] == (6, 5)
    assert pixel_size_um(items[0]) == 0.5


def test_a_damaged_description_is_listed_and_the_others_are_cases(plate):
    (plate.parent / "bad.zarr").mkdir()
    (plate.parent / "bad.zarr" / ".zattrs").write_text("{")
    problems = []
    assert len(find_cases(plate.parent, problems=problems)) == 3
    assert [problem.case for problem in problems] == ["bad.zarr"]
    assert "cannot be read as OME-Zarr" in problems[0].problem


def test_another_chunk_is_another_content(plate):
    field = plate / "A/01/0"
    before = content_sha256(field)
    chunk = field / "0" / "0.0.1.1"
    chunk.write_bytes(zlib.compress(np.full(16, 7, np.uint16).tobytes()))
    assert content_sha256(field) != before


def test_without_zarr_the_next_step_is_told(plate, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ConfigError, match=r'pip install "metaseg-monai\[zarr\]"'):
        read_image(plate / "A/01/0")


def test_a_mask_of_it_is_a_tiff(plate, tmp_path):
    like = read_header(plate / "A/01/0")
    path = write_mask(np.ones((6, 5)), tmp_path / "mask.tif", like)
    assert read_image(path).array.shape == (1, 6, 5)


@needs_zarr
def test_pixels_are_those_that_were_written(plate, tmp_path):
    read = read_image(plate / "A/01/1")
    np.testing.assert_array_equal(read.array[0], np.arange(30).reshape(6, 5) + 100)
    assert read.array.dtype == np.uint16
    assert read.attributes["spacing_mm"] == (0.0005, 0.0005)
    stack = np.random.default_rng(0).integers(0, 9, (2, 3, 6, 5)).astype(np.uint8)
    volume = read_image(image(tmp_path / "stack.zarr", stack), 3)
    np.testing.assert_array_equal(volume.array, np.moveaxis(stack, 1, -1))
    assert volume.attributes["spacing_mm"] == (0.0005, 0.0005, 0.002)
    with pytest.raises(DataError, match="has 3 spatial axes"):
        read_image(tmp_path / "stack.zarr", 2)


@needs_zarr
def test_what_is_damaged_is_named(plate, tmp_path):
    field = plate / "A/01/0"
    (field / "0" / "0.0.0.1").write_bytes(b"no zlib")
    with pytest.raises(DataError, match=r"0: cannot be read as OME-Zarr"):
        read_image(field)
    (field / "0" / "0.0.0.1").unlink()
    with pytest.warns(UserWarning, match="1 of 4 chunks are not there"):
        read_image(field)
    axes = [{"name": "t"}, *CZYX]
    film = image(tmp_path / "film.zarr", np.ones((2, 1, 1, 6, 5), np.uint8), axes, (1,) * 5)
    with pytest.raises(DataError, match="2 time points"):
        read_image(film)
    (field / "0" / ".zarray").unlink()
    with pytest.raises(DataError, match="cannot be read as OME-Zarr"):
        read_header(field)
