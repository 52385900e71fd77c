"""Simulated cells: files and tables, what only metadata tells, and what one sees in the images."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.ndimage import label as components
from skimage.measure import regionprops

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.simulate import generate_cells
from metaseg_monai.simulate.cells import culture as culture_module
from metaseg_monai.simulate.cells import write as write_module
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
from metaseg_monai.simulate.cells.plan import ANOMALIES, NUCLEI, Plan
from metaseg_monai.simulate.cells.write import draw_picture
from metaseg_monai.tables import load_case, read_table

WHEN = {"provenance": "acquisition", "availability": "acquisition"}
SCHEMA = MetadataSchema([Categorical(name="cell_line", values=SEVEN_LINES, **WHEN)])
PLAIN = Acquisition(magnification=20)
EMPTY = Culture(*np.zeros((2, 64, 64), np.float32), np.zeros((64, 64), np.uint16))


def generate(folder, recipe="seven_lines", **settings):
    given = {"train": 14, "val": 7, "test": 7, "size": 64, **settings}
    return pd.read_csv(generate_cells(folder, recipe, **given), dtype=str, keep_default_na=False)


def field(line, size=256, pixel_um=0.65, seed=0, density=1000.0):
    return draw_culture(np.random.default_rng(seed), line, (size, size), pixel_um, density)


def picture(line, seed=0, size=64, cue="image", taken=PLAIN, **plan):
    return draw_picture(np.random.default_rng(seed), Plan("train", line, **plan), taken, size, cue)


def image_of(culture, seed=1, **taken):
    return expose(np.random.default_rng(seed), culture, replace(PLAIN, **taken)).astype(float)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path, contents):
    generate(tmp_path / "one")
    generate(tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    generate(tmp_path / "other", seed=1)
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


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
    same = ["split", "cell_line", "magnification", "modality", "focus_um", "unrelated_line"]
    wells = table.groupby("group")
    assert (wells[same].nunique() == 1).all(axis=None)
    assert wells.size().max() <= 4
    assert table["modality"].nunique() == 3  # this recipe lets everything vary
    assert (table["group"] == table["plate"] + "_" + table["well"]).all()


def test_lines_of_other_wells_say_nothing_about_a_well(tmp_path):
    table = generate(tmp_path / "cells", train=280, size=32, fields_per_well=1)
    assert (table["unrelated_line"] == table["cell_line"]).mean() == pytest.approx(1 / 7, abs=0.06)


def test_what_tells_the_nucleus_is_as_asked():
    """With the same chance, two lines differ in what is seen, in their nuclei, or in nothing."""
    small, large = (field(line_as_seen(name, "metadata")) for name in ("MDCK", "NIH3T3"))
    np.testing.assert_array_equal(small.relief, large.relief)
    assert np.mean(large.objects > 0) > 2 * np.mean(small.objects > 0)
    small, large = (field(line_as_seen(name, "image")) for name in ("MDCK", "NIH3T3"))
    assert small.relief.mean() < 0.8 * large.relief.mean()
    small, large = (field(line_as_seen(name, "nothing")) for name in ("MDCK", "NIH3T3"))
    np.testing.assert_array_equal(small.relief, large.relief)
    np.testing.assert_array_equal(small.objects, large.objects)


def test_images_of_all_lines_are_equal_where_only_metadata_tells(tmp_path):
    images = [picture(name, cue="metadata").image for name in ("HeLa", "HT1080")]
    np.testing.assert_array_equal(*images)
    with pytest.raises(ConfigError, match="metadata would not be the only cue"):
        generate(tmp_path / "cells", "acquisition", cue="metadata")


def test_all_fields_of_a_well_have_the_same_light(tmp_path):
    for kind in ("tilted", "vignetted", "even"):
        taken = {"illumination": kind, "lamp": 0.95, "light_angle": 1.0}
        light = illumination((64, 64), replace(PLAIN, **taken))
        shots = [image_of(EMPTY, n, **taken) for n in range(40)]
        flat = np.mean(shots, axis=0) / np.mean(shots)
        np.testing.assert_allclose(flat, light / light.mean(), rtol=0.02)


def test_crowded_fields_take_seconds_and_cells_keep_their_distance(monkeypatch):
    crowds = []

    class Crowd(culture_module.Crowd):
        def __init__(self, side):
            super().__init__(side)
            crowds.append(self)

    monkeypatch.setattr(culture_module, "Crowd", Crowd)
    draw_culture(np.random.default_rng(0), LINES["MDCK"], (200, 200), 2.6, 1500.0)
    cells = np.concatenate([*crowds[0].squares.values()])
    gaps = np.hypot(*(cells[:, None, :2] - cells[None, :, :2]).transpose(2, 0, 1))
    least = culture_module.CROWDING * (cells[:, None, 2] + cells[None, :, 2])
    np.fill_diagonal(gaps, np.inf)
    assert len(cells) > 150
    assert (gaps > least).all()


def test_more_cells_than_can_be_numbered_are_refused(monkeypatch):
    monkeypatch.setattr(culture_module, "MOST_OBJECTS", 3)
    with pytest.raises(DataError, match="choose a smaller size"):
        field(LINES["MDCK"])


def test_nuclei_have_the_size_of_their_line_in_micrometres():
    for name in ("MDCK", "HepG2"):
        for pixel_um in (0.325, 0.65):
            culture = field(LINES[name], 400, pixel_um, density=300.0)
            areas = [one.area * pixel_um**2 for one in whole_nuclei(culture)]
            expected = np.pi * LINES[name].nucleus.radius_um ** 2
            assert np.median(areas) == pytest.approx(expected, rel=0.2)


def test_objects_are_connected_and_apart():
    objects = field(LINES["HeLa"], density=1500.0).objects
    assert objects.max() > 15
    for number in range(1, objects.max() + 1):
        assert components(objects == number)[1] <= 2  # a neighbour may cut one in two


def test_contrast_grows_with_defocus_and_turns_with_its_side():
    culture = field(LINES["HepG2"])
    near, far, below = (image_of(culture, focus_um=z) for z in (1.0, 5.0, -5.0))
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
    noise = image_of(EMPTY).std() / image_of(EMPTY).mean()
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
    generate(tmp_path / "data", size=32)
    item = read_table(tmp_path / "data", SCHEMA).items("train")[0]
    assert item["metadata"]["cell_line"] in SEVEN_LINES
    assert load_case(item).image.shape == (1, 32, 32)
    assert item["columns"]["pixel_um"] == "0.65"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"recipe": "six_lines"}, "expected one of seven_lines"),
        ({"size": 16}, "size=16: expected a whole number, 32 or more"),
        ({"val": -1}, "val=-1"),
        ({"train": 0, "val": 0, "test": 0}, "at least one image"),
        ({"seed": -1}, "seed=-1"),
        ({"cue": "smell"}, "cue 'smell'"),
        ({"layout": "large"}, "layout 'large'"),
        ({"fields_per_well": 0}, "fields_per_well=0"),
        ({"workers": "two"}, "workers=.two."),
        ({"train": "abc"}, "train=.abc."),
    ],
)
def test_refusals_leave_no_folder(tmp_path, wrong, told):
    with pytest.raises(ConfigError, match=told):
        generate_cells(tmp_path / "cells", **{"size": 32, **wrong})
    assert not (tmp_path / "cells").exists()


def few_cells(line, pixel_um=0.3):
    return draw_culture(np.random.default_rng(0), line, (600, 600), pixel_um, 400.0)


def whole_nuclei(culture):
    height, width = culture.objects.shape
    return [
        one
        for one in regionprops(culture.objects)
        if min(one.bbox[:2]) > 0 and one.bbox[2] < height and one.bbox[3] < width
    ]


def test_nuclei_point_where_their_cells_do():
    culture = few_cells(LINES["HT1080"])
    cells = components(culture.relief > 0.05)[0]
    angles = []
    for cell in regionprops(cells):
        inside = culture.objects[cells == cell.label]
        numbers = set(np.unique(inside)) - {0}
        nuclei = [one for one in whole_nuclei(culture) if {one.label} == numbers]
        at_border = min(cell.bbox[:2]) == 0 or max(cell.bbox[2:]) == 600
        if nuclei and not at_border:
            turned = abs(nuclei[0].orientation - cell.orientation)
            angles.append(min(turned, np.pi - turned))
    assert len(angles) >= 4
    assert np.median(angles) < np.radians(12)


def turned_overlap(line):
    """The mean share of a nucleus's box that its turn by 180 degrees leaves as it was."""
    shapes = [one.image for one in whole_nuclei(few_cells(line, 0.15))]
    return np.mean([np.mean(shape == shape[::-1, ::-1]) for shape in shapes])


def test_a_flattened_side_makes_nuclei_lopsided():
    flattened = LINES["MCF7"]
    oval = replace(flattened, nucleus=replace(flattened.nucleus, flattened=0.0))
    assert turned_overlap(flattened) < turned_overlap(oval) - 0.02


def steepest(**taken):
    """The steepest slope of glowing nuclei, as a share of their brightness."""
    culture = few_cells(LINES["HeLa"])
    image = image_of(culture, modality="fluorescence", exposure_ms=40, **taken)
    return np.percentile(np.hypot(*np.gradient(image)), 99.9) / image.max()


def test_water_and_larger_objectives_are_sharper_and_defocus_blurs():
    assert replace(PLAIN, medium="water").sharpness_um < PLAIN.sharpness_um
    assert replace(PLAIN, magnification=40).sharpness_um < PLAIN.sharpness_um
    assert steepest(focus_um=14.0) < 0.8 * steepest(focus_um=2.0)


def test_annotated_anomalies_are_in_the_image():
    found = 0
    for seed in range(12):
        made = picture("MDCK", seed, 128, tasks=(NUCLEI, ANOMALIES))
        mask = made.labels[ANOMALIES] > 0
        away = np.abs(made.image.astype(float) / np.median(made.image) - 1)
        found += mask.any()
        assert not mask.any() or away[mask].mean() > 1.5 * away[~mask].mean()
    assert found >= 11


def test_some_images_are_spoilt_though_nobody_says_so(monkeypatch):
    numbers = []
    draw = write_module.draw_anomalies

    def recorded(chance, size, pixel_um, number):
        numbers.append(number)
        return draw(chance, size, pixel_um, number)

    monkeypatch.setattr(write_module, "draw_anomalies", recorded)
    for seed in range(60):
        picture("MDCK", seed, 32)
    assert 4 <= sum(number > 0 for number in numbers) <= 22  # one in five


def test_tolerances_of_styles_grow_with_the_magnification(monkeypatch):
    asked = []
    monkeypatch.setattr(
        write_module, "polygonise", lambda labels, tolerance: asked.append(tolerance) or labels
    )
    for magnification in (10.0, 20.0, 40.0):
        taken = replace(PLAIN, magnification=magnification)
        picture("HeLa", taken=taken, style="coarse")
    assert asked == [1.75, 3.5, 7.0]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["seven_lines", "anomalies", "magnification"])
def test_the_thesis_layout_as_files(tmp_path, recipe):
    path = generate_cells(tmp_path / "cells", recipe, layout="thesis", size=32)
    table = pd.read_csv(path)
    total = {"seven_lines": 3024, "anomalies": 3389, "magnification": 3888}[recipe]
    assert len(table) == total
