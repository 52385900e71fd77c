"""The size of pixels survives where pixels are written anew."""

import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.evaluation.object_table import tiff_pixel_um
from metaseg_monai.prepare import PrepareOptions, prepare_cells

GREY = PrepareOptions(grey=True)
COLOURS = {"photometric": "rgb"}


def prepared(lab, tmp_path, options, pixels, **image_options):
    source, _ = lab.cells(tmp_path / "lab", 3)
    for n in range(3):
        lab.tif(source / "images" / f"im{n}.tif", pixels + np.uint16(n), **image_options)
    made = prepare_cells(source, tmp_path / "out", options=options)
    assert made.problems == []
    return made, tmp_path / "out" / "images" / "im0.tif"


def ome(**sizes):
    return {"ome": True, "metadata": {"axes": "YXS", **sizes}}


@pytest.mark.parametrize(
    ("image_options", "expected"),
    [
        ({"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"axes": "YXS", "unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"axes": "YXS", "unit": "px"}}, None),
        (ome(PhysicalSizeX=0.325, PhysicalSizeY=0.325), 0.325),
        (
            ome(
                PhysicalSizeX=650, PhysicalSizeXUnit="nm", PhysicalSizeY=650, PhysicalSizeYUnit="nm"
            ),
            0.65,
        ),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
)
def test_grey_keeps_the_size_of_a_pixel(lab, tmp_path, image_options, expected):
    kind = np.uint8 if image_options.get("imagej") else np.uint16
    pixels = lab.image(0, (*lab.shape, 3)).astype(kind)
    source, _ = lab.cells(tmp_path / "lab", 3)
    for n in range(3):
        lab.tif(source / "images" / f"im{n}.tif", pixels + kind(n), **COLOURS, **image_options)
    stored = tiff_pixel_um(source / "images" / "im0.tif")
    assert stored == (expected and pytest.approx(expected, rel=1e-5))
    assert prepare_cells(source, tmp_path / "out", options=GREY).problems == []
    written = tiff_pixel_um(tmp_path / "out" / "images" / "im0.tif")
    assert written == (expected and pytest.approx(expected, rel=1e-5))


def test_tags_stay_and_none_are_invented(lab, tmp_path):
    pixels = lab.image(0, (*lab.shape, 3))
    given = {"resolution": (300, 150), "resolutionunit": "INCH"}
    _, path = prepared(lab, tmp_path, GREY, pixels, **COLOURS, **given)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert (page.tags["XResolution"].value, page.tags["YResolution"].value) == (
            (300, 1),
            (150, 1),
        )
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.INCH
    bare = PIL.Image.fromarray(lab.image(1, (*lab.shape, 3), np.uint8))
    bare.save(tmp_path / "lab" / "images" / "im0.tif")  # without the tags
    prepare_cells(tmp_path / "lab", tmp_path / "b", options=GREY)
    with tifffile.TiffFile(tmp_path / "b" / "images" / "im0.tif") as file:
        assert file.pages[0].tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE


def test_axes_keep_it_too(lab, tmp_path):
    given = {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    options = PrepareOptions(axes="CYX")
    _, path = prepared(lab, tmp_path, options, lab.image(0, (5, 20, 30)), **given)
    assert tiff_pixel_um(path) == pytest.approx(1.0)


def test_metadata_that_cannot_be_read_are_told(lab, tmp_path):
    text = '<?xml version="1.0"?><!DOCTYPE OME><OME xmlns="http://www.openmicroscopy.org/'
    text += 'Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    text += 'DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20" SizeZ="1" SizeC="3" '
    text += 'SizeT="1" PhysicalSizeX="1"><Channel ID="Channel:0" SamplesPerPixel="3"/><TiffData/>'
    text += "</Pixels></Image></OME>"
    pixels = lab.image(0, (*lab.shape, 3))
    made, _ = prepared(lab, tmp_path, GREY, pixels, **COLOURS, description=text, metadata=None)
    assert "without the size of its pixels: OME metadata are not legible: 3 cases" in made.summary


def test_the_summary_tells_what_was_written(lab, tmp_path):
    made, path = prepared(lab, tmp_path, GREY, lab.image(0, (*lab.shape, 3)), **COLOURS)
    assert "uint16 with 1 channel: 3 cases" in made.summary
    assert "3 channels" not in made.summary
    assert tifffile.imread(path).shape == lab.shape
