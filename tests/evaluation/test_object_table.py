"""Objects measured in the pixels of their file, one row each, and summed up by well."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from ignite.engine import Engine
from skimage.measure import regionprops_table

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.object_table import ObjectTable, well_summary
from metaseg_monai.metrics.objects import ObjectSettings, find_objects, measure_objects

MASK = np.zeros((20, 30), np.uint8)
MASK[0:4, 3:8] = 1  # at the border: 20 pixels
MASK[8:14, 10:14] = 1  # 24 pixels
MASK[15:18, 20:28] = 1  # 24 pixels
IMAGE = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100


def one_hot(classes, count=2):
    return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), count).movedim(-1, 0)


def objects_of(mask, count=2):
    return find_objects(one_hot(mask, count).float(), ObjectSettings())


class Loader(list):
    def __init__(self, items, batches):
        super().__init__(batches)
        self.dataset = SimpleNamespace(data=items)


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


def run(handler, items, masks, classes=2, **batch_keys):
    def step(engine, batch):
        engine.state.batch = batch[0]
        return {"pred": batch[1]}

    batches = [
        (
            {"case": [item["case"]], **batch_keys},
            one_hot(mask, classes)[None].float(),
        )
        for item, mask in zip(items, masks, strict=True)
    ]
    engine = Engine(step)
    handler.attach(engine)
    engine.run(Loader(items, batches))


def test_every_object_is_measured_as_scikit_image_does_at_once():
    objects = objects_of(MASK)
    table = measure_objects(objects, IMAGE[None], None)
    names = {
        "label": "object", "centroid-0": "centroid_y_px", "centroid-1": "centroid_x_px",
        "area": "area_px", "equivalent_diameter_area": "diameter_px", "perimeter": "perimeter_px",
        "axis_major_length": "major_axis_px", "axis_minor_length": "minor_axis_px",
        "eccentricity": "eccentricity", "solidity": "solidity", "intensity_mean": "mean_intensity",
        "intensity_min": "min_intensity", "intensity_max": "max_intensity",
    }  # fmt: skip
    known = [name.partition("-")[0] for name in names]
    expected = pd.DataFrame(regionprops_table(objects.labels, IMAGE, [*dict.fromkeys(known)]))
    pd.testing.assert_frame_equal(
        table[list(names.values())], expected.rename(columns=names)[list(names.values())],
        check_dtype=False, atol=1e-4,
    )  # fmt: skip
    inside = IMAGE[MASK.astype(bool) & (np.indices(MASK.shape)[0] < 4)]
    assert table.loc[0, "sd_intensity"] == pytest.approx(inside.std(), abs=1e-4)
    assert table["touches_border"].tolist() == [1, 0, 0]
    assert table["class"].tolist() == [1, 1, 1]
    assert table["area_um2"].isna().all()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("at", ["start", "end"])
def test_all_four_borders_touch(side, at):
    mask = np.zeros((9, 9), np.uint8)
    place = [4, 4]
    place[side] = 0 if at == "start" else 8
    mask[tuple(place)] = 1
    mask[2, 2] = 1
    table = measure_objects(objects_of(mask), None, None)
    borders = dict(zip(table["area_px"].index, table["touches_border"], strict=True))
    assert sorted(borders.values()) == [0, 1]


def test_micrometres_where_the_pixel_size_is_known():
    row = measure_objects(objects_of(MASK), None, 0.5).iloc[1]
    assert (row["centroid_y_px"], row["centroid_y_um"]) == (10.5, 5.25)
    assert (row["area_px"], row["area_um2"]) == (24, 6)
    assert row["diameter_px"] == pytest.approx(2 * math.sqrt(24 / math.pi), abs=1e-4)
    assert row["diameter_um"] == pytest.approx(math.sqrt(24 / math.pi), abs=1e-4)


def test_single_pixels_and_lines_have_shapes_without_warnings():
    mask = np.zeros((9, 9), np.uint8)
    mask[1, 1] = mask[3, 2:6] = 1
    np.fill_diagonal(mask[5:, 5:], 1)
    table = measure_objects(objects_of(mask), None, 1.0)
    assert table["area_px"].tolist() == [1, 4, 4]
    assert table["solidity"].tolist() == [1, 1, 1]


def test_channels_are_numbered_and_empty_images_have_the_same_columns():
    image = np.stack([IMAGE, IMAGE // 2, IMAGE // 4])
    table = measure_objects(objects_of(MASK), image, 0.5)
    assert table["mean_intensity_2"].tolist() == pytest.approx(table["mean_intensity_1"] / 2)
    empty = measure_objects(objects_of(0 * MASK), image, 0.5)
    assert empty.columns.tolist() == table.columns.tolist()
    assert len(empty) == 0
    with pytest.raises(DataError, match=r"shape \(19, 30\), its objects \(20, 30\)"):
        measure_objects(objects_of(MASK), IMAGE[None, 1:], None)


def test_both_tables_of_a_run(tmp_path):
    items = [
        item_of(tmp_path / "in", "a", well="B02", pixel_um="0.5"),
        item_of(tmp_path / "in", "b", well="B02", pixel_um="0.5"),
        item_of(tmp_path / "in", "c", well="B03", pixel_um="0.5"),
        item_of(tmp_path / "in", "d"),
    ]
    run(ObjectTable(tmp_path / "out"), items, [MASK, 0 * MASK, MASK, MASK])
    objects = pd.read_csv(tmp_path / "out" / "objects.csv", keep_default_na=False)
    assert objects["case"].tolist() == ["a"] * 3 + ["c"] * 3 + ["d"] * 3
    assert objects["object"].tolist() == [1, 2, 3] * 3
    assert objects.columns[:6].tolist() == ["case", "plate", "well", "group", "object", "class"]
    assert objects["area_um2"].tolist() == ["5.0", "6.0", "6.0"] * 2 + [""] * 3
    assert objects["max_intensity"].tolist()[:3] == [9700, 40300, 53700]
    wells = pd.read_csv(tmp_path / "out" / "wells.csv", keep_default_na=False)
    names = ["plate", "well", "group", "images", "objects", "whole_objects", "objects_per_image"]
    assert wells[names].to_numpy().tolist() == [
        ["P1", "B02", "", 2, 3, 2, 1.5],
        ["P1", "B03", "group of c", 1, 3, 2, 3],
        ["", "", "group of d", 1, 3, 2, 3],
    ]
    area = 600 * 0.25 / 1e6
    assert wells["imaged_mm2"].tolist() == [str(round(2 * area, 4)), str(round(area, 4)), ""]
    assert float(wells.loc[0, "objects_per_mm2"]) == pytest.approx(3 / (2 * area))
    assert wells["median_area_px"].tolist() == [24, 24, 24]  # not the one of 20 at the border
    assert wells["median_area_um2"].tolist() == ["6.0", "6.0", ""]


def test_a_well_without_objects_is_a_row(tmp_path):
    items = [item_of(tmp_path, "a", well="B02", pixel_um="1")]
    run(ObjectTable(tmp_path / "out"), items, [0 * MASK])
    wells = pd.read_csv(tmp_path / "out" / "wells.csv")
    assert (wells.loc[0, "objects"], wells.loc[0, "objects_per_mm2"]) == (0, 0)
    assert wells["median_area_px"].isna().all()
    assert (tmp_path / "out" / "objects.csv").read_text().count("\n") == 1


def test_one_image_of_unknown_pixel_size_leaves_the_density_of_its_well_unknown(tmp_path):
    items = [
        item_of(tmp_path, "a", well="B02", pixel_um="1"),
        item_of(tmp_path, "b", well="B02", pixel_um=""),
    ]
    run(ObjectTable(tmp_path / "out"), items, [MASK, MASK])
    wells = pd.read_csv(tmp_path / "out" / "wells.csv")
    assert wells["objects_per_mm2"].isna().all()


def test_tasks_and_classes_are_kept_apart(tmp_path):
    items = [
        {**item_of(tmp_path, "a", well="B02"), "metadata": {"task": task}, "case": f"a_{task}"}
        for task in ("nuclei", "debris")
    ]
    classes = MASK.copy()
    classes[15:18] *= 2
    run(ObjectTable(tmp_path / "out", by=["task"]), items, [classes, MASK], classes=3)
    wells = pd.read_csv(tmp_path / "out" / "wells.csv")
    assert wells[["task", "class", "images", "objects"]].to_numpy().tolist() == [
        ["nuclei", 1, 1, 2],
        ["nuclei", 2, 1, 1],
        ["debris", 1, 1, 3],
        ["debris", 2, 1, 0],
    ]
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert objects["task"].tolist() == ["nuclei"] * 3 + ["debris"] * 3
    with pytest.raises(DataError, match=r"has no field or column 'tasks'; it has .*task"):
        run(ObjectTable(tmp_path / "out", by=["tasks"]), items, [MASK, MASK])


def test_names_that_both_tables_show_are_taken_once_and_never_from_their_own_columns(tmp_path):
    items = [item_of(tmp_path, "a", well="B02", dye="red", object="x", median_area_px="7")]
    run(ObjectTable(tmp_path / "out", by=["dye", "well", "dye"]), items, [MASK])
    wells = pd.read_csv(tmp_path / "out" / "wells.csv")
    assert wells[["plate", "well", "dye", "objects"]].to_numpy().tolist() == [
        ["P1", "B02", "red", 3]
    ]
    assert ObjectTable(tmp_path, by=None).by == []
    of_objects = ("object", "area_px", "touches_border", "area_um2", "mean_intensity_2")
    of_wells = ("images", "objects", "objects_per_mm2", "median_area_px", "median_mean_intensity")
    for name in (*of_objects, *of_wells, "pixel_um", "imaged_px", "_alone"):
        with pytest.raises(ConfigError, match=f"objects_by names '{name}', as objects.csv and"):
            ObjectTable(tmp_path / "never", by=["dye", name])
    assert not (tmp_path / "never").exists()


def test_a_name_that_only_resembles_a_measure_is_a_name(tmp_path):
    items = [item_of(tmp_path, "a", well="B02", mean_intensity_class="bright")]
    run(ObjectTable(tmp_path / "out", by=["mean_intensity_class"]), items, [MASK])
    wells = pd.read_csv(tmp_path / "out" / "wells.csv")
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


def test_of_several_test_modes_the_true_metadata_count(tmp_path):
    items = [item_of(tmp_path, "a")]
    handler = ObjectTable(tmp_path / "out")
    with pytest.raises(DataError, match="no image was predicted"):
        run(handler, items, [MASK], mode=["shuffle"])
    for _ in range(2):  # a second evaluation starts from nothing
        run(handler, items, [MASK], mode=["normal"])
    assert len(pd.read_csv(tmp_path / "out" / "objects.csv")) == 3


def test_resampled_predictions_are_measured_in_the_pixels_of_the_file(tmp_path):
    large = MASK.repeat(2, 0).repeat(2, 1)
    items = [item_of(tmp_path, "a", image=IMAGE.repeat(2, 0).repeat(2, 1))]
    native = {"native_shape": torch.tensor([large.shape])}
    run(ObjectTable(tmp_path / "out"), items, [MASK], **native)
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert objects["area_px"].tolist() == pytest.approx([80, 96, 96], rel=0.1)
    with pytest.raises(DataError, match=r"case 'a': the image has the shape \(40, 60\)"):
        run(ObjectTable(tmp_path / "out"), items, [MASK])


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="objects_by is 'task'; expected a list"):
        ObjectTable(tmp_path, by="task")
    for wrong in (5, [5]):
        with pytest.raises(ConfigError, match="expected a list of fields or columns"):
            ObjectTable(tmp_path, by=wrong)
    with pytest.raises(ConfigError, match="unknown key"):
        ObjectTable(tmp_path, {"size": 3})
