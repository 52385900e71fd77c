"""Objects of predictions: label images, their tables in the pixels of their file, and wells."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from ignite.engine import Events

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.masks import SaveMasks
from metaseg_monai.evaluation.object_table import (
    SaveObjects,
    pixel_size_um,
    well_summary,
    write_labels,
)
from metaseg_monai.images.read import read_image
from metaseg_monai.images.tiff import tiff_pixel_um

MASK = np.zeros((20, 30), np.uint8)
MASK[0:4, 3:8] = 1  # at the border: 20 pixels
MASK[8:14, 10:14] = 1  # 24 pixels
MASK[15:18, 20:28] = 1  # 24 pixels
IMAGE = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100


def item_of(folder, case, image=IMAGE, well=None, metadata=None, **columns):
    path = folder / f"{case}.tif"
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")
    if well is not None:
        columns |= {"plate": "P1", "well": well}
    return {
        "case": case, "image": str(path), "group": f"group of {case}",
        "metadata": metadata or {}, "columns": columns,
    }  # fmt: skip


@pytest.fixture
def tables(tmp_path, run, one_hot):
    """Save the objects of masks, one a case, and read their tables."""

    def save(items, masks, classes=2, objects=None, by=(), form="labels", threshold=0.5, **batch):
        pairs = [
            ({"case": [item["case"]], **batch}, {"pred": one_hot(mask, classes)[None].float()})
            for item, mask in zip(items, masks, strict=True)
        ]
        run(SaveObjects(tmp_path / "out", form, objects, by, threshold), pairs, items)
        return [pd.read_csv(tmp_path / "out" / name) for name in ("objects.csv", "wells.csv")]

    return save


def test_both_tables_of_a_run(tmp_path, tables):
    items = [
        item_of(tmp_path / "in", "a", well="B02", pixel_um="0.5"),
        item_of(tmp_path / "in", "b", well="B02", pixel_um="0.5"),
        item_of(tmp_path / "in", "c", well="B03", pixel_um="0.5"),
        item_of(tmp_path / "in", "d"),
    ]
    objects, wells = tables(items, [MASK, 0 * MASK, MASK, MASK])
    assert objects["case"].tolist() == ["a"] * 3 + ["c"] * 3 + ["d"] * 3
    assert objects["object"].tolist() == [1, 2, 3] * 3
    assert objects.columns[:6].tolist() == ["case", "plate", "well", "group", "object", "class"]
    assert objects["area_um2"].fillna(0).tolist() == [5, 6, 6] * 2 + [0] * 3
    assert objects["max_intensity"].tolist()[:3] == [9700, 40300, 53700]
    names = ["plate", "well", "group", "images", "objects", "whole_objects", "objects_per_image"]
    assert wells[names].fillna("").to_numpy().tolist() == [
        ["P1", "B02", "", 2, 3, 2, 1.5],
        ["P1", "B03", "group of c", 1, 3, 2, 3],
        ["", "", "group of d", 1, 3, 2, 3],
    ]
    area = 600 * 0.25 / 1e6
    assert wells["imaged_mm2"].fillna(0).tolist() == [round(2 * area, 4), round(area, 4), 0]
    assert wells.loc[0, "objects_per_mm2"] == pytest.approx(3 / (2 * area))
    assert wells["median_area_px"].tolist() == [24, 24, 24]  # not the one of 20 at the border
    assert wells["median_area_um2"].fillna(0).tolist() == [6, 6, 0]


def test_a_well_without_objects_is_a_row(tmp_path, tables):
    items = [item_of(tmp_path, "a", well="B02", pixel_um="1")]
    _, wells = tables(items, [0 * MASK])
    assert (wells.loc[0, "objects"], wells.loc[0, "objects_per_mm2"]) == (0, 0)
    assert wells["median_area_px"].isna().all()
    assert (tmp_path / "out" / "objects.csv").read_text().count("\n") == 1


def test_one_image_of_unknown_pixel_size_leaves_the_density_of_its_well_unknown(tmp_path, tables):
    items = [
        item_of(tmp_path, "a", well="B02", pixel_um="1"),
        item_of(tmp_path, "b", well="B02", pixel_um=""),
    ]
    _, wells = tables(items, [MASK, MASK])
    assert wells["objects_per_mm2"].isna().all()


def test_the_threshold_of_masks_is_that_of_objects(tmp_path, tables):
    items = [item_of(tmp_path / "in", "a")]  # its objects are e times as probable as background
    found = {limit: len(tables(items, [MASK], threshold=limit)[0]) for limit in (0.5, 0.73, 0.74)}
    assert found == {0.5: 3, 0.73: 3, 0.74: 0}
    tables(items, [MASK], threshold=0.26)  # all is one object, as background weighs less
    assert tifffile.imread(tmp_path / "out" / "a_objects.tif").all()
    with pytest.raises(ConfigError, match="threshold=1"):
        SaveObjects(tmp_path, threshold=1)


def test_tasks_and_classes_are_kept_apart(tmp_path, tables):
    items = [
        {**item_of(tmp_path, "a", well="B02"), "metadata": {"task": task}, "case": f"a_{task}"}
        for task in ("nuclei", "debris")
    ]
    classes = MASK.copy()
    classes[15:18] *= 2
    objects, wells = tables(items, [classes, MASK], classes=3, by=["task"])
    assert wells[["task", "class", "images", "objects"]].to_numpy().tolist() == [
        ["nuclei", 1, 1, 2],
        ["nuclei", 2, 1, 1],
        ["debris", 1, 1, 3],
        ["debris", 2, 1, 0],
    ]
    assert objects["task"].tolist() == ["nuclei"] * 3 + ["debris"] * 3
    with pytest.raises(DataError, match=r"has no field or column 'tasks'; it has .*task"):
        tables(items, [MASK, MASK], by=["tasks"])


def test_names_that_both_tables_show_are_taken_once_and_are_no_measures(tmp_path, tables):
    items = [item_of(tmp_path, "a", well="B02", dye="red", object="x", median_area_px="7")]
    _, wells = tables(items, [MASK], by=["dye", "well", "dye"])
    assert wells[["plate", "well", "dye", "objects"]].to_numpy().tolist() == [
        ["P1", "B02", "red", 3]
    ]
    assert SaveObjects(tmp_path, by=None).by == []
    of_objects = ("object", "area_px", "touches_border", "area_um2", "mean_intensity_2")
    of_wells = ("images", "objects", "objects_per_mm2", "median_area_px", "median_mean_intensity")
    for name in (*of_objects, *of_wells, "pixel_um", "imaged_px", "_alone"):
        with pytest.raises(ConfigError, match=f"objects_by names '{name}', as objects.csv and"):
            SaveObjects(tmp_path / "never", by=["dye", name])
    assert not (tmp_path / "never").exists()


def test_a_name_that_only_resembles_a_measure_is_a_name(tmp_path, tables):
    items = [item_of(tmp_path, "a", well="B02", mean_intensity_class="bright")]
    _, wells = tables(items, [MASK], by=["mean_intensity_class"])
    assert wells.loc[0, "mean_intensity_class"] == "bright"


def test_medians_do_not_depend_on_the_order_of_cases():
    images = pd.DataFrame(
        {
            "case": list("abc"), "plate": "P", "well": ["1", "2", "1"], "group": list("xyz"),
            "class": 1, "imaged_px": 100, "pixel_um": 1.0,
        }
    )  # fmt: skip
    sizes = dict.fromkeys(("area_um2", "diameter_px", "diameter_um", "eccentricity"), 1.0)
    objects = images.iloc[[2, 0, 1, 0]].assign(
        area_px=[1, 3, 50, 100], touches_border=[0, 0, 0, 1], solidity=1.0, **sizes
    )
    wells = well_summary(images, objects)
    assert wells["median_area_px"].tolist() == [2, 50]
    assert wells["objects"].tolist() == [3, 1]
    assert wells["group"].tolist() == ["", "y"]


def test_resampled_predictions_are_measured_in_the_pixels_of_the_file(tmp_path, tables):
    large = MASK.repeat(2, 0).repeat(2, 1)
    items = [item_of(tmp_path, "a", image=IMAGE.repeat(2, 0).repeat(2, 1))]
    native = {"native_shape": torch.tensor([large.shape])}
    objects, _ = tables(items, [MASK], **native)
    assert objects["area_px"].tolist() == pytest.approx([80, 96, 96], rel=0.1)
    with pytest.raises(DataError, match=r"case 'a': the image has the shape \(40, 60\)"):
        tables(items, [MASK])


def test_wrong_settings_are_refused(tmp_path):
    for wrong in ("task", 5, [5]):
        with pytest.raises(ConfigError, match=r"objects_by is .*; expected a list of fields or"):
            SaveObjects(tmp_path, by=wrong)
    with pytest.raises(ConfigError, match="unknown key"):
        SaveObjects(tmp_path, objects={"size": 3})
    with pytest.raises(ConfigError, match=r"'mask' .* labels, ome-labels, not 'label'"):
        SaveObjects(tmp_path, "label")


@pytest.mark.parametrize(
    ("form", "name"), [("labels", "a_objects.tif"), ("ome-labels", "a_objects.ome.tif")]
)
def test_labels_have_the_shape_and_pixel_size_of_the_image(tmp_path, tables, form, name):
    item = item_of(tmp_path, "a")
    tifffile.imwrite(item["image"], IMAGE, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    touching = MASK.copy()
    touching[8:14, 14:19] = 1  # which a watershed cuts off again
    settings = {"method": "watershed", "min_distance_px": 2}
    objects, wells = tables([item], [touching], objects=settings, form=form)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        name, "objects.csv", "wells.csv", "predicted.sha256",
    }  # fmt: skip
    labels = read_image(tmp_path / "out" / name).array[0]
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels > 0, touching > 0)
    assert tiff_pixel_um(tmp_path / "out" / name) == pytest.approx(0.5)
    with tifffile.TiffFile(tmp_path / "out" / name) as file:
        assert file.is_ome is (form == "ome-labels")
        assert file.series[0].axes == "YX"
    for _, row in objects.iterrows():
        assert row["area_px"] == (labels == row["object"]).sum()
    assert wells.loc[0, "objects"] == labels.max() > 3


def test_an_unknown_pixel_size_is_not_invented(tmp_path):
    for name in ("a.tif", "a.ome.tif"):
        write_labels(tmp_path / name, IMAGE)
        assert tiff_pixel_um(tmp_path / name) is None


def test_ome_metadata_are_those_of_the_standard(tmp_path):
    write_labels(tmp_path / "a.ome.tif", IMAGE, 0.325)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        text = file.ome_metadata
    for told in ('PhysicalSizeX="0.325"', 'PhysicalSizeYUnit="µm"', 'SizeX="30"', 'SizeY="20"'):
        assert told in text
    assert 'Type="uint16"' in text


def test_more_objects_than_16_bits_hold_are_written_with_32(tmp_path):
    labels = np.arange(66000, dtype=np.int32).reshape(220, 300)
    for name in ("a.tif", "a.ome.tif"):
        write_labels(tmp_path / name, labels)
        stored = tifffile.imread(tmp_path / name)
        assert stored.dtype == np.uint32
        np.testing.assert_array_equal(stored, labels)
    write_labels(tmp_path / "b.tif", labels[:218])
    assert tifffile.imread(tmp_path / "b.tif").dtype == np.uint16


def test_only_earlier_predictions_are_replaced(tmp_path, tables):
    items, out = [item_of(tmp_path, "a")], tmp_path / "out"
    for _ in range(2):
        tables(items, [MASK])
    lines = (out / "predicted.sha256").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("# ")]
    assert [line[66:] for line in lines] == ["a_objects.tif", "objects.csv", "wells.csv"]
    for line in lines:
        assert hashlib.sha256((out / line[66:]).read_bytes()).hexdigest() == line[:64]
    for name in ("a_objects.tif", "objects.csv"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(b"corrected by hand")
        with pytest.raises(DataError, match=f"changed since they were predicted .*{name}"):
            tables(items, [MASK])
        (out / name).write_bytes(before)


def test_images_and_volumes_are_refused(tmp_path, tables):
    items = [item_of(tmp_path / "out", name) for name in ("a", "a_objects")]
    with pytest.raises(DataError, match="The objects of 'a' would replace the image"):
        tables(items, [MASK, MASK])
    items[0]["image"] = "v.nii.gz"
    with pytest.raises(DataError, match="objects are made of 2D images"):
        tables(items, [MASK, MASK])
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("kind", [SaveMasks, SaveObjects])
def test_a_batch_and_its_output_are_let_go_before_the_next_is_read(tmp_path, run, one_hot, kind):
    items, held = [item_of(tmp_path, case) for case in "abc"], []

    def attach(engine):
        kind(tmp_path / "out").attach(engine)
        look = Events.GET_BATCH_COMPLETED
        engine.add_event_handler(look, lambda engine: held.append(engine.state.output))

    pairs = [({"case": [case]}, {"pred": one_hot(MASK)[None].float()}) for case in "abc"]
    state = run(SimpleNamespace(attach=attach), pairs, items)
    assert held == [None] * 3
    assert state.output is not None  # the last is still there for who asks at the end


def test_the_column_comes_before_the_file(tmp_path):
    file = write_labels(tmp_path / "a.ome.tif", IMAGE, 0.5)
    item = {"case": "a", "image": str(file), "columns": {"pixel_um": " 0.325 "}}
    assert pixel_size_um(item) == 0.325
    for nothing in ("", "NaN", "n/a"):
        assert pixel_size_um({**item, "columns": {"pixel_um": nothing}}) == 0.5
    assert pixel_size_um({"case": "a", "image": [str(file), "other.tif"]}) == 0.5
    (tmp_path / "a.png").touch()
    assert pixel_size_um({"case": "a", "image": str(tmp_path / "a.png")}) is None


@pytest.mark.parametrize("cell", ["0", "-1", "half", "inf", "0,5"])
def test_a_column_without_a_size_is_refused(cell):
    with pytest.raises(DataError, match=r"case 'a': pixel_um is .*; expected micrometres"):
        pixel_size_um({"case": "a", "image": "a.tif", "columns": {"pixel_um": cell}})
