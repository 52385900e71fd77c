import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.object_table import pixel_size_um, tiff_pixel_um

PIXELS = np.zeros((4, 6), np.uint16)


def write(path, **settings):
    tifffile.imwrite(path, PIXELS, photometric="minisblack", **settings)
    return path


def ome(tmp_path, **described):
    return write(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "YX", **described})


def test_the_column_comes_before_the_file(tmp_path):
    file = ome(tmp_path, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    item = {"case": "a", "image": str(file), "columns": {"pixel_um": " 0.325 "}}
    assert pixel_size_um(item) == 0.325
    assert pixel_size_um({**item, "columns": {"pixel_um": ""}}) == 0.5
    assert pixel_size_um({"case": "a", "image": [str(file), "other.tif"]}) == 0.5
    (tmp_path / "a.png").touch()
    assert pixel_size_um({"case": "a", "image": str(tmp_path / "a.png")}) is None


@pytest.mark.parametrize("cell", ["0", "-1", "half", "nan", "0,5"])
def test_a_column_without_a_size_is_refused(cell):
    with pytest.raises(DataError, match=r"case 'a': pixel_um is .*; expected micrometres"):
        pixel_size_um({"case": "a", "image": "a.tif", "columns": {"pixel_um": cell}})


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
    assert tiff_pixel_um(write(tmp_path / "b.tif")) is None


def test_imagej_and_centimetres_tell_and_a_screen_does_not(tmp_path):
    imagej = {"imagej": True, "resolution": (2, 2)}
    for unit, expected in (("um", 0.5), ("micron", 0.5), ("nm", 0.0005), ("pixel", None)):
        assert tiff_pixel_um(write(tmp_path / "c.tif", **imagej, metadata={"unit": unit})) == (
            expected
        )
    for unit, value, expected in (
        ("CENTIMETER", 20000, 0.5),
        ("CENTIMETER", 28.346, None),  # 72 per inch
        ("INCH", 72, None),
        ("INCH", 50800, None),
        ("NONE", 1, None),
    ):
        file = write(tmp_path / "d.tif", resolution=(value, value), resolutionunit=unit)
        assert tiff_pixel_um(file) == expected


def test_a_file_that_could_make_a_parser_run_away_tells_nothing(tmp_path):
    text = (
        '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "0.5">]>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels PhysicalSizeX="&a;" PhysicalSizeY="&a;"/></Image></OME>'
    )
    file = write(tmp_path / "e.tif", description=text, metadata=None)
    with tifffile.TiffFile(file) as stored:
        assert stored.is_ome
    assert tiff_pixel_um(file) is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "f.tif").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"f\.tif: its header cannot be read"):
        tiff_pixel_um(tmp_path / "f.tif")
