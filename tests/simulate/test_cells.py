import hashlib

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.ndimage import label as components

import metaseg_monai.simulate.cells.culture as culture_module
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.simulate import cells_table, generate_cells
from metaseg_monai.simulate.cells.acquisition import Acquisition, expose, illumination
from metaseg_monai.simulate.cells.culture import (
    LINES,
    SEVEN_LINES,
    VISIBLE,
    Culture,
    draw_anomalies,
    draw_culture,
    line_as_seen,
)
from metaseg_monai.simulate.cells.picture import draw_picture
from metaseg_monai.simulate.cells.plan import Plan
from metaseg_monai.tables import load_case

SCHEMA = MetadataSchema(
    [
        Categorical(
            name="cell_line",
            values=SEVEN_LINES,
            provenance="acquisition",
            availability="acquisition",
        )
    ]
)


def generate(folder, recipe="seven_lines", **settings):
    given = {"train": 14, "val": 7, "test": 7, "size": 64, **settings}
    return pd.read_csv(generate_cells(folder, recipe, **given), dtype=str, keep_default_na=False)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(p.relative_to(folder), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


def field(line, size=256, pixel_um=0.65, seed=0, density=1000.0):
    return draw_culture(np.random.default_rng(seed), line, (size, size), pixel_um, density)


def image_of(culture, seed=1, **taken):
    return expose(
        np.random.default_rng(seed), culture, Acquisition(**{"magnification": 20, **taken})
    )


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    generate(tmp_path / "one")
    generate(tmp_path / "two", workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    generate(tmp_path / "other", seed=1)
    assert digest(tmp_path / "one") != digest(tmp_path / "other")


def test_more_training_images_leave_the_test_images_as_they_are(tmp_path):
    few, many = generate(tmp_path / "few"), generate(tmp_path / "many", train=21)
    assert len(many) == len(few) + 7
    for name in few.loc[few["split"] == "test", "image"]:
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_files_are_16_bit_with_a_known_pixel_size(tmp_path):
    row = generate(tmp_path / "cells").iloc[0]
    with tifffile.TiffFile(tmp_path / "cells" / row["image"]) as file:
        assert file.asarray().dtype == np.uint16
        assert file.asarray().shape == (64, 64)
        across, inch = file.pages[0].tags["XResolution"].value
        assert 1e4 / (across / inch) == pytest.approx(0.65, rel=1e-4)
    assert row["pixel_um"] == "0.65"


def test_the_label_is_the_foreground_of_the_numbered_objects(tmp_path):
    table = generate(tmp_path / "cells")
    for _, row in table.iterrows():
        label = tifffile.imread(tmp_path / "cells" / row["label"])
        objects = tifffile.imread(tmp_path / "cells" / row["instances"])
        np.testing.assert_array_equal(label, objects > 0)
        numbers = np.unique(objects[objects > 0])
        np.testing.assert_array_equal(numbers, np.arange(1, len(numbers) + 1))


def test_a_well_stays_in_one_split_and_is_taken_in_one_way(tmp_path):
    table = generate(tmp_path / "cells", "acquisition", train=40, val=8, test=8)
    same = [
        "split",
        "cell_line",
        "magnification",
        "modality",
        "focus_um",
        "unrelated_line",
        "plate",
    ]
    wells = table.groupby("group")
    assert (wells[same].nunique() == 1).all(axis=None)
    assert wells.size().max() <= 4
    assert table["modality"].nunique() == 3  # this recipe lets everything vary
    assert (table["group"] == table["plate"] + "_" + table["well"]).all()


def test_lines_of_other_wells_say_nothing_about_a_well(tmp_path):
    table = generate(tmp_path / "cells", train=280, size=32, fields_per_well=1)
    assert (table["unrelated_line"] == table["cell_line"]).mean() == pytest.approx(1 / 7, abs=0.06)


def test_only_metadata_tells_the_nucleus_by_design():
    """With the same chance the images of all lines are equal, and the nuclei are not."""
    fields = [field(line_as_seen(name, "metadata")) for name in ("MDCK", "NIH3T3")]
    np.testing.assert_array_equal(fields[0].relief, fields[1].relief)
    areas = [np.mean(f.objects > 0) for f in fields]
    assert areas[1] > 2 * areas[0]


def test_images_of_all_lines_are_equal_where_only_metadata_tells(tmp_path):
    plain = Acquisition(magnification=20)
    images = [
        draw_picture(np.random.default_rng(4), Plan("train", name), plain, 96, "metadata").image
        for name in ("HeLa", "HT1080")
    ]
    np.testing.assert_array_equal(*images)
    with pytest.raises(DataError, match="metadata would not be the only cue"):
        generate(tmp_path / "cells", "acquisition", cue="metadata")


def test_all_fields_of_a_well_have_the_same_light(tmp_path):
    for kind in ("tilted", "vignetted", "even"):
        taken = Acquisition(20, illumination=kind, lamp=0.95, light_angle=1.0)
        empty = Culture(*(np.zeros((48, 48), np.float32),) * 2, np.zeros((48, 48), np.uint16))
        light = illumination((48, 48), taken)
        shots = [expose(np.random.default_rng(n), empty, taken) for n in range(40)]
        flat = np.mean(shots, axis=0) / np.mean(shots)
        np.testing.assert_allclose(flat, light / light.mean(), rtol=0.02)


def test_crowded_fields_take_seconds_and_cells_keep_their_distance(monkeypatch):
    placed = []
    monkeypatch.setattr(culture_module._Crowd, "add", recorded(placed, culture_module._Crowd.add))
    draw_culture(np.random.default_rng(0), LINES["MDCK"], (200, 200), 2.6, 1500.0)
    cells = np.array(placed)
    gaps = np.hypot(*(cells[:, None, :2] - cells[None, :, :2]).transpose(2, 0, 1))
    least = culture_module.CROWDING * (cells[:, None, 2] + cells[None, :, 2])
    np.fill_diagonal(gaps, np.inf)
    assert len(cells) > 150
    assert (gaps > least).all()


def recorded(into, method):
    def add(self, y, x, radius):
        into.append((y, x, radius))
        method(self, y, x, radius)

    return add


def test_more_cells_than_can_be_numbered_are_refused(monkeypatch):
    monkeypatch.setattr(culture_module, "MOST_OBJECTS", 3)
    with pytest.raises(DataError, match="choose a smaller size"):
        field(LINES["MDCK"])


def test_nothing_tells_the_nucleus_where_lines_are_one():
    small, large = (field(line_as_seen(name, "nothing")) for name in ("MDCK", "NIH3T3"))
    np.testing.assert_array_equal(small.relief, large.relief)
    np.testing.assert_array_equal(small.objects, large.objects)


def test_the_image_tells_the_line_where_it_is_visible():
    reliefs = [field(line_as_seen(name, "image")).relief for name in ("MDCK", "NIH3T3")]
    assert reliefs[0].mean() < 0.8 * reliefs[1].mean()


def test_nuclei_have_the_size_of_their_line_in_micrometres():
    for name in ("MDCK", "HepG2"):
        for pixel_um in (0.325, 0.65):
            objects = field(LINES[name], 400, pixel_um, density=300.0).objects
            inner = objects[2:-2, 2:-2]
            whole = set(np.unique(inner)) - set(np.unique(np.r_[objects[0], objects[-1]]))
            whole -= set(np.unique(np.r_[objects[:, 0], objects[:, -1]])) | {0}
            areas = [np.sum(objects == number) * pixel_um**2 for number in whole]
            expected = np.pi * LINES[name].nucleus.radius_um ** 2
            assert np.median(areas) == pytest.approx(expected, rel=0.2)


def test_objects_are_connected_and_apart():
    objects = field(LINES["HeLa"], density=1500.0).objects
    assert objects.max() > 15
    for number in range(1, objects.max() + 1):
        assert components(objects == number)[1] <= 2  # a neighbour may cut one in two


def test_contrast_grows_with_defocus_and_turns_with_its_side():
    culture = field(LINES["HepG2"])
    near, far, below = (image_of(culture, focus_um=z).astype(float) for z in (1.0, 5.0, -5.0))
    assert far.std() > 2 * near.std()
    upper, lower = far - far.mean(), below - below.mean()
    assert np.corrcoef(upper.ravel(), lower.ravel())[0, 1] < -0.5


def test_modality_stain_exposure_and_noise():
    culture = field(LINES["HeLa"])
    inside = culture.objects > 0
    glow = image_of(culture, modality="fluorescence")
    assert glow[inside].mean() > 4 * glow[~inside].mean()
    plain, stained = image_of(culture), image_of(culture, staining="haematoxylin")
    assert stained[inside].mean() < 0.9 * plain[inside].mean()
    ratio = image_of(culture, exposure_ms=40).mean() / image_of(culture, exposure_ms=20).mean()
    assert ratio == pytest.approx(2, rel=0.15)
    assert image_of(culture, exposure_ms=40).max() < 65535
    empty = Culture(*(np.zeros((64, 64), np.float32),) * 2, np.zeros((64, 64), np.uint16))
    noise = image_of(empty).std() / image_of(empty).mean()
    assert 0.005 < noise < 0.03


def test_anomalies_are_where_light_is_lost():
    found = 0
    for seed in range(20):
        light, mask = draw_anomalies(np.random.default_rng(seed), (96, 96), 0.65, 3)
        np.testing.assert_array_equal(mask, np.abs(light - 1) > VISIBLE)
        found += bool(mask.any())
    assert found >= 18
    light, mask = draw_anomalies(np.random.default_rng(0), (96, 96), 0.65, 0)
    assert not mask.any()
    assert (light == 1).all()


def test_two_tasks_are_two_rows_of_one_image(tmp_path):
    table = generate(tmp_path / "cells", "anomalies_curtailed")
    pairs = table.groupby("image")["task"].apply(sorted)
    assert pairs[table.loc[table["split"] == "train", "image"]].map(len).eq(2).all()
    assert (table.loc[table["task"] == "anomalies", "instances"] == "").all()


def test_coarse_styles_change_the_training_masks(tmp_path):
    styles = generate(tmp_path / "styles", "styles", train=21)
    generate(tmp_path / "exact", "seven_lines", train=21)
    assert set(styles.loc[styles["split"] != "train", "style"]) == {"exact"}
    for style, differs in (("exact", False), ("fine", True), ("coarse", True)):
        rows = styles[(styles["style"] == style) & (styles["split"] == "train")]
        changed = []
        for name in rows["label"]:
            drawn = tifffile.imread(tmp_path / "styles" / name)
            true = tifffile.imread(tmp_path / "exact" / name)
            changed.append((drawn != true).any())
        assert any(changed) is differs


def test_cracks_have_no_objective(tmp_path):
    table = generate(tmp_path / "cells", "heterogeneous")
    wall = table[table["domain"] == "CRACK"]
    assert len(wall)
    assert set(wall["task"]) == {"cracks"}
    assert set(table["unrelated_line"]) <= {"CRACK", "HeLa", "HepG2"}
    assert (wall[["magnification", "pixel_um", "instances"]] == "").all(axis=None)
    assert tifffile.imread(tmp_path / "cells" / wall.iloc[0]["label"]).any()


def test_the_table_reads_back(tmp_path):
    table = cells_table(
        tmp_path / "data", tmp_path / "data", SCHEMA, train=7, val=7, test=7, size=32
    )
    item = table.items("train")[0]
    assert item["metadata"]["cell_line"] in SEVEN_LINES
    assert load_case(item).image.shape == (1, 32, 32)
    assert item["columns"]["pixel_um"] == "0.65"


def test_other_settings_are_not_mistaken_for_the_data_there(tmp_path):
    made = {"train": 7, "val": 7, "test": 7, "size": 32}
    cells_table(tmp_path / "data", tmp_path / "data", SCHEMA, **made)
    with pytest.raises(DataError, match="was made with"):
        cells_table(tmp_path / "data", tmp_path / "data", SCHEMA, **made, cue="metadata")
    with pytest.raises(DataError, match="generate cells --output"):
        cells_table(tmp_path / "none", tmp_path / "data", SCHEMA, **made)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": 16}, "size=16"),
        ({"seed": -1}, "seed=-1"),
        ({"cue": "smell"}, "cue 'smell'"),
        ({"layout": "large"}, "layout 'large'"),
        ({"fields_per_well": 0}, "fields_per_well=0"),
        ({"workers": "two"}, "workers=.two."),
        ({"train": "abc"}, "train=.abc."),
    ],
)
def test_refusals_leave_no_folder(tmp_path, wrong, told):
    with pytest.raises(DataError, match=told):
        generate_cells(tmp_path / "cells", **{"size": 32, **wrong})
    assert not (tmp_path / "cells").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["seven_lines", "anomalies", "magnification"])
def test_the_thesis_layout_as_files(tmp_path, recipe):
    path = generate_cells(tmp_path / "cells", recipe, layout="thesis", size=32)
    table = pd.read_csv(path)
    total = {"seven_lines": 3024, "anomalies": 3389, "magnification": 3888}[recipe]
    assert len(table) == total
