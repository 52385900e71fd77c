"""What OME metadata tell, and that the size of pixels survives where they are written anew."""

import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.object_table import tiff_pixel_um
from metaseg_monai.prepare import prepare_cells
from metaseg_monai.prepare.ome import ome_columns, read_ome

OME = {"ome": True}


def xml(size='PhysicalSizeX="0.325"', objective="", settings="", channels=""):
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Instrument ID="Instrument:0">{objective}</Instrument><Image ID="Image:0">{settings}'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20" '
        f'SizeZ="1" SizeC="1" SizeT="1" {size}>{channels}<TiffData/></Pixels></Image></OME>'
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ('PhysicalSizeX="0.325"', "0.325"),  # micrometres by default
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="µm" PhysicalSizeY="0.65"', "0.65"),
        ('PhysicalSizeX="325" PhysicalSizeXUnit="nm"', "0.325"),
        ('PhysicalSizeX="0.0005" PhysicalSizeXUnit="mm"', "0.5"),
        ('PhysicalSizeY="650000" PhysicalSizeYUnit="pm"', "0.65"),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', ""),
        ("", ""),
    ],
)
def test_pixel_size_in_micrometres(size, expected):
    assert ome_columns(xml(size), "a.tif")["pixel_um"] == expected


def test_magnification_of_the_objective_that_was_used():
    one, other = (
        f'<Objective ID="Objective:{n}" NominalMagnification="{m}"/>' for n, m in ((0, 20), (1, 40))
    )
    used = '<ObjectiveSettings ID="Objective:1"/>'
    columns = [
        ome_columns(xml(objective=objective, settings=settings), "a.tif")["magnification"]
        for objective, settings in ((one, ""), (one + other, used), (one + other, ""), ("", used))
    ]
    assert columns == ["20", "40", "", ""]


def test_channel_names_are_joined():
    channels = '<Channel ID="C:0" Name="DAPI"/><Channel ID="C:1" Name="a;b"/>'
    assert ome_columns(xml(channels=channels), "a.tif")["channel"] == "DAPI;a,b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><OME>&a;</OME>', "document type or entities"),
        ("<OME>", "no XML"),
        ("<OME/>", "of 0 images, expected one"),
        (xml('PhysicalSizeX="0"'), "PhysicalSizeX='0', expected a number above 0"),
        (xml('PhysicalSizeX="nan"'), "expected a number above 0"),
        (xml('PhysicalSizeX="1" PhysicalSizeXUnit="furlong"'), "Unit 'furlong', expected one of"),
        (xml('PhysicalSizeX="1" PhysicalSizeY="2"'), "pixels of 1 x 2 micrometres"),
        (xml(objective='<Objective NominalMagnification="-4"/>'), "NominalMagnification='-4'"),
    ],
)
def test_refusals_name_the_file(text, message):
    with pytest.raises(DataError, match=rf"a\.tif: .*{message}"):
        ome_columns(text, "a.tif")


def ome_folder(lab, root):
    """Three images, of which two have OME metadata and one a magnification in the table too."""
    for n in range(3):
        path = root / "images" / f"im{n}.ome.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        if n < 2:
            metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
            metadata["Channel"] = {"Name": ["brightfield"]}
            tifffile.imwrite(path, lab.image(n), metadata=metadata)
        else:
            lab.tif(path, lab.image(n))
        lab.png(root / "masks" / f"im{n}.ome.png", lab.mask())
    return root


def test_columns_of_prepared_images(lab, tmp_path):
    source = ome_folder(lab, tmp_path / "src")
    lab.csv(source / "t.csv", [{"file": f"im{n}.ome.tif", "pixel_um": ""} for n in range(3)])
    made = prepare_cells(source, tmp_path / "out", **OME)
    assert made.problems == []
    rows = lab.rows(made.table)
    assert [row["pixel_um"] for row in rows] == ["0.5", "0.5", ""]
    assert [row["channel"] for row in rows] == ["brightfield", "brightfield", ""]
    assert {row["magnification"] for row in rows} == {""}
    for n in range(3):  # metadata stay in the copied files
        name = f"images/im{n}.ome.tif"
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def test_without_a_table_ome_is_enough(lab, tmp_path):
    source = ome_folder(lab, tmp_path / "src")
    assert len(lab.rows(prepare_cells(source, tmp_path / "out", **OME).table)) == 3


def test_a_table_that_differs_is_a_problem(lab, tmp_path):
    source = ome_folder(lab, tmp_path / "src")
    rows = [{"file": f"im{n}.ome.tif", "pixel_um": size} for n, size in enumerate([0.5, 0.65, 1])]
    lab.csv(source / "t.csv", rows)
    made = prepare_cells(source, tmp_path / "out", **OME)
    assert len(made.problems) == 1
    expected = "im1.ome: images/im1.ome.tif: pixel_um is '0.65', its OME metadata have 0.5"
    assert expected in made.problems[0]
    assert [row["pixel_um"] for row in lab.rows(made.table)] == ["0.5", "1"]


def test_planes_must_agree(lab, tmp_path):
    paths = []
    for n, size in enumerate((0.5, 0.6)):
        paths.append(tmp_path / f"{n}.ome.tif")
        metadata = {"axes": "YX", "PhysicalSizeX": size}
        tifffile.imwrite(paths[-1], lab.image(n), metadata=metadata)
    with pytest.raises(DataError, match=r"pixel_um differs between planes .*'0.5', '0.6'"):
        read_ome(paths)
    assert read_ome([paths[0], paths[0]])["pixel_um"] == "0.5"
    assert read_ome([tmp_path / "a.png"]) == {"pixel_um": "", "magnification": "", "channel": ""}
    paths[1].write_bytes(b"MM\0*")
    with pytest.raises(DataError, match="header cannot be read"):
        read_ome(paths)


@pytest.mark.parametrize("cell", ["20x", "20 X", "20\u00d7", "20", "20.0"])
def test_a_magnification_may_be_written_with_an_x(lab, tmp_path, cell):
    objective = '<Objective ID="Objective:0" NominalMagnification="20"/>'
    for n in range(3):
        path = tmp_path / "s" / "images" / f"im{n}.tif"
        text = xml(objective=objective)
        lab.tif(path, lab.image(n), description=text, metadata=None)
        lab.png(tmp_path / "s" / "masks" / f"im{n}.png", lab.mask())
    rows = [{"file": f"im{n}.tif", "magnification": cell} for n in range(3)]
    lab.csv(tmp_path / "s" / "t.csv", rows)
    made = prepare_cells(tmp_path / "s", tmp_path / "out", **OME)
    assert made.problems == []
    assert {row["magnification"] for row in lab.rows(made.table)} == {cell}  # the lab's own word
    lab.csv(tmp_path / "s" / "t.csv", [{**row, "magnification": "40x"} for row in rows])
    told = prepare_cells(tmp_path / "s", tmp_path / "b", **OME)
    assert "magnification is '40x', its OME metadata have 20" in told.problems[0]


GREY = {"grey": True}
COLOURS = {"photometric": "rgb"}


def prepared(lab, tmp_path, options, pixels, **image_options):
    source, _ = lab.cells(tmp_path / "lab", 3)
    for n in range(3):
        lab.tif(source / "images" / f"im{n}.tif", pixels + np.uint16(n), **image_options)
    made = prepare_cells(source, tmp_path / "out", **options)
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
    assert prepare_cells(source, tmp_path / "out", **GREY).problems == []
    written = tiff_pixel_um(tmp_path / "out" / "images" / "im0.tif")
    assert written == (expected and pytest.approx(expected, rel=1e-5))


def test_tags_stay_and_none_are_invented(lab, tmp_path):
    pixels = lab.image(0, (*lab.shape, 3))
    given = {"resolution": (300, 150), "resolutionunit": "INCH"}
    made, path = prepared(lab, tmp_path, GREY, pixels, **COLOURS, **given)
    assert "uint16 with 1 channel: 3 cases" in made.summary
    assert "3 channels" not in made.summary
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert (page.tags["XResolution"].value, page.tags["YResolution"].value) == (
            (300, 1),
            (150, 1),
        )
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.INCH
    bare = PIL.Image.fromarray(lab.image(1, (*lab.shape, 3), np.uint8))
    bare.save(tmp_path / "lab" / "images" / "im0.tif")  # without the tags
    prepare_cells(tmp_path / "lab", tmp_path / "b", **GREY)
    with tifffile.TiffFile(tmp_path / "b" / "images" / "im0.tif") as file:
        assert file.pages[0].tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE


def test_axes_keep_it_too(lab, tmp_path):
    given = {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    options = {"axes": "CYX"}
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
