"""Simulated adipocytes: their planes, their stains, their files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.prepare.adipocyte import INTENSITY, INTENSITY_LABELS, NUCLEI
from metaseg_monai.simulate import generate_adipocyte
from metaseg_monai.simulate.adipocyte import (
    LAYERS_UM,
    Scene,
    Well,
    brightfield,
    draw_scene,
    draw_well,
    fluorescence,
)
from metaseg_monai.tables import around_objects, read_table
from metaseg_monai.transforms import CropAtCentred

FEW = {"train": 2, "val": 1, "test": 1, "fields": 1, "size": 48}
STAINS = ["nuclei", "lipids", "cytoplasm"]
WHEN = {"provenance": "acquisition", "availability": "acquisition"}
SCHEMA = MetadataSchema(
    [
        Continuous(name="magnification", unit="x", range=(20, 60), scale="log2", **WHEN),
        Categorical(name="channel", values=tuple(STAINS), **WHEN),
    ]
)
WELL = Well(1000.0, 0.7, dict.fromkeys(STAINS, 1.0), 1.0, 0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adipocyte") / "data"
    assert generate_adipocyte(folder, **FEW) == folder / "table.csv"
    return folder


def test_the_table_has_a_row_for_each_field_and_stain(made):
    table = read_table(made, SCHEMA)
    assert len(table.rows) == 4 * 3 * 3
    assert {len(item["image"]) for item in table.rows} == {7}
    groups = [{item["group"] for item in table.items(split)} for split in ("train", "val", "test")]
    assert [len(one) for one in groups] == [2, 1, 1]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    rows = pd.read_csv(made / "table.csv")
    for file in {*rows["label"], *rows["image"].str.split(";").str[3], *rows["instances"]}:
        image = tifffile.imread(made / file)
        assert (image.shape, image.dtype) == ((48, 48), np.uint16)
    for mask, numbers in zip(rows["mask"], rows["instances"], strict=True):
        numbers = tifffile.imread(made / numbers)
        assert np.array_equal(tifffile.imread(made / mask), numbers > 0)
        assert set(np.unique(numbers)) == set(range(numbers.max() + 1))
    assert all((made / name).is_file() for name in (NUCLEI, INTENSITY, INTENSITY_LABELS))


def test_same_seed_same_bytes_other_seed_others(made, tmp_path, contents):
    for name, seed in (("a", 0), ("b", 1)):
        generate_adipocyte(tmp_path / name, **FEW, seed=seed)
    was, a, b = contents(made), contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a == was
    assert a.keys() == b.keys()
    assert not any(a[name] == b[name] for name in a if name.startswith(("images/", "targets/")))


def test_more_wells_keep_the_first(made, tmp_path, contents):
    generate_adipocyte(tmp_path / "more", **{**FEW, "train": 3, "val": 0, "test": 0})
    was, more = contents(made), contents(tmp_path / "more")
    first = [name for name in more if "_A01_" in name or "_A02_" in name]
    assert len(first) > 50
    assert all(was[name] == more[name] for name in first)


def one_thing(**given):
    """A field of nothing but what is given, 0.4 um a pixel."""
    empty = np.zeros((64, 64), np.float32)
    arrays = {"body": empty, "nuclei": empty, "brightness": empty + 1, "chromatin": empty + 1}
    arrays |= {"granules": empty + 1, "objects": empty.astype(np.uint16)}
    arrays["droplets"] = tuple(empty for _ in LAYERS_UM)
    return Scene(**{**arrays, **given}, pixel_um=0.4)


def sphere(radius_um):
    y, x = np.ogrid[:64, :64]
    away = np.hypot(y - 32, x - 32) * 0.4
    return (2 * np.sqrt(np.clip(radius_um**2 - away**2, 0, None))).astype(np.float32)


def middle_over_background(scene, height_um, magnification=40.0):
    random = np.random.default_rng(0)
    plane = brightfield(random, scene, WELL, magnification, height_um).astype(float)
    return plane[29:36, 29:36].mean() / plane[:10].mean()


def test_a_droplet_is_bright_above_it_and_dark_below_and_more_so_farther_away():
    empty = np.zeros((64, 64), np.float32)
    scene = one_thing(droplets=(empty, sphere(4.0), empty))
    found = [middle_over_background(scene, height) for height in (-6, -3, 0, 3, 6)]
    assert found == sorted(found)
    assert found[0] < 0.8
    assert found[-1] > 1.2
    assert found[2] == pytest.approx(1, abs=0.06)


def test_a_nucleus_is_hardly_seen_in_brightfield_and_clearly_in_its_stain():
    nucleus = sphere(5.0)
    scene = one_thing(nuclei=nucleus)
    lens = one_thing(droplets=(nucleus, *[0 * nucleus] * 2))
    seen, lipid = (abs(middle_over_background(one, 6) - 1) for one in (scene, lens))
    assert 0 < seen < lipid / 3
    shown = {
        stain: fluorescence(np.random.default_rng(0), scene, WELL, 40.0, stain).astype(float)
        for stain in STAINS
    }
    assert shown["nuclei"][30:35, 30:35].mean() > 20 * shown["nuclei"][:8].mean()
    assert shown["lipids"][30:35, 30:35].mean() < 1.2 * shown["lipids"][:8].mean()


def test_cytoplasm_is_dark_where_lipid_is():
    empty = np.zeros((64, 64), np.float32)
    drop = sphere(4.0)
    scene = one_thing(body=empty + 4, droplets=(empty, drop, empty))
    shown = fluorescence(np.random.default_rng(0), scene, WELL, 40.0, "cytoplasm").astype(float)
    assert shown[30:35, 30:35].mean() < 0.4 * shown[:8].mean()
    lipids = fluorescence(np.random.default_rng(0), scene, WELL, 40.0, "lipids").astype(float)
    assert lipids[30:35, 30:35].mean() > 5 * lipids[:8].mean()


def test_the_same_cells_at_two_magnifications():
    areas = {}
    for magnification in (20, 40):
        random = np.random.default_rng(3)
        pixel_um = 16 / magnification
        scene = draw_scene(random, WELL, round(160 / pixel_um), pixel_um)
        areas[magnification] = np.bincount(scene.objects.ravel())[1:] * pixel_um**2
    assert 12 < len(areas[20]) < 40
    assert np.median(areas[20]) == pytest.approx(np.median(areas[40]), rel=0.05)


def test_wells_differ_in_cells_and_stains():
    wells = [draw_well(np.random.default_rng(seed)) for seed in range(20)]
    assert np.std([well.density_per_mm2 for well in wells]) > 50
    assert 0.05 < np.std([np.log(well.stains["nuclei"]) for well in wells]) < 0.25


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 31}, "size=31"),
        ({"train": 0, "val": 0, "test": 0}, "0 wells: expected 1 to 384"),
        ({"train": 385}, "387 wells"),
        ({"planes": 0}, "planes=0"),
        ({"magnifications": (20, 20)}, "expected different numbers"),
        ({"magnifications": ()}, "expected different numbers"),
        ({"camera_pixel_um": 0.5}, "camera_pixel_um=0.5"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        generate_adipocyte(tmp_path / "x", **{**FEW, **setting})


def test_other_settings_are_refused_in_a_folder_that_is_made(made):
    generate_adipocyte(made, **FEW)  # the same are taken
    with pytest.raises(DataError, match="planes"):
        generate_adipocyte(made, **FEW, planes=5)


def test_training_crops_are_around_each_nucleus(made):
    table = around_objects(read_table(made, SCHEMA))
    train = table.items("train")
    objects = pd.read_csv(made / NUCLEI)
    assert len(train) == 3 * (objects["split"] == "train").sum()  # of three stains
    assert all("centre_px" not in item for item in table.items("test"))
    crop = CropAtCentred(["objects"], (9, 13))
    for item in train[::7]:
        numbers = tifffile.imread(made / item["columns"]["instances"])[None]
        (row, column), found = item["centre_px"], crop({**item, "objects": numbers})["objects"]
        assert found.shape == (1, 9, 13)
        assert found[0, 4, 6] == numbers[0, round(row), round(column)]
    with pytest.raises(DataError, match="no centre_px to crop around"):
        crop({"case": "a", "objects": numbers})
    # a table to test on alone has no crops to cut, and needs none
    tested = replace(table, rows=tuple(table.items("test")))
    assert around_objects(tested).rows == tested.rows
    bare = replace(table, rows=tuple({**row, "columns": {}} for row in tested.rows))
    assert around_objects(bare).rows == bare.rows
    with pytest.raises(DataError, match=r"none\.csv: no such file.* camera_pixel_um"):
        around_objects(table, "none.csv")
    nowhere = tuple({**row, "columns": {"instances": "x"}} for row in table.rows)
    with pytest.raises(DataError, match="no object in any of the rows of train"):
        around_objects(replace(table, rows=nowhere))
