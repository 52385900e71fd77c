"""Reports of runs whose labels are images: the lower score is the better one, and what is shown."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from ignite.engine import Engine

from metaseg_monai.evaluation import PerCase
from metaseg_monai.evaluation.image_scores import ImageObjects, ImageSamples, ImageScores
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.metrics.scores import (
    IMAGE_SCORES,
    average_score,
    case_mean_medmae,
    case_scores,
    pooled_score,
    score_of,
)
from metaseg_monai.reporting.figures.predictions import difference, outlines
from metaseg_monai.reporting.objects import count_row, feature_row
from metaseg_monai.reporting.runs import Results, read_single_runs
from metaseg_monai.reporting.scores import reliance, share_curve
from metaseg_monai.reporting.words import Asked, found
from metaseg_monai.reporting.write import write_report
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.run import scores_by_mode
from metaseg_monai.study.design import Protocol
from metaseg_monai.tables import read_table

IMAGE = ["condition", "data_seed", "seed", "case"]


def counts_of(condition, medmae, mode="normal", seed=0):
    """Scores of cases in wells of their own, by domain, half of them each."""
    half = len(medmae) // 2
    rows = [
        {
            **{"condition": condition, "data_seed": 0, "seed": seed, "case": f"c{n}"},
            **{"group": f"w{n}", "split": "test", "mode": mode, "domain": "20"[: 1 + (n >= half)]},
            **{"class": 1, "channel": "nuclei", "pixels": 100, "medmae": value},
            **{"psnr": 20.0, "ssim": 0.9, "pearson": 0.8, "sharpness": 0.7},
        }
        for n, value in enumerate(medmae)
    ]
    return pd.DataFrame(rows)


def test_scores_of_images_are_means_and_less_is_better():
    two = pd.concat([counts_of("se", [0.1, 0.3, 0.8, np.nan])] * 2, ignore_index=True)
    two.loc[4:, "class"] = 2
    two.loc[4:, "medmae"] = [0.3, 0.3, 0.2, np.nan]
    assert score_of(two).name == "medMAE"
    assert pooled_score(two) == pytest.approx((1.2 / 3 + 0.8 / 3) / 2)
    assert average_score(two) == pytest.approx((((0.1 + 0.3) / 2 + 0.3) / 2 + (0.8 + 0.2) / 2) / 2)
    assert case_scores(two)["f1"].tolist()[:3] == pytest.approx([0.2, 0.3, 0.5])
    assert np.isnan(case_scores(two)["f1"].tolist()[3])


def test_an_evaluation_tells_the_mean_scores_of_each_mode():
    both = pd.concat([counts_of("se", [0.2, 0.4] * 2), counts_of("se", [0.6] * 4, "shuffle")])
    scores = scores_by_mode(both)
    assert scores["medmae"].to_dict() == pytest.approx({"normal": 0.3, "shuffle": 0.6})
    assert scores.loc["normal", [*IMAGE_SCORES[1:], "cases"]].tolist() == [20, 0.9, 0.8, 0.7, 4]


def test_the_interval_of_the_mean_medmae_is_over_wells():
    one = counts_of("se", [0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    mean = case_mean_medmae(pd.concat([one, one.assign(case="again" + one["case"])]))
    assert mean[0] == pytest.approx(0.7)
    assert (mean.cases, mean.empty) == (12, 0)
    assert (mean.low, mean.high) == pytest.approx((0.2667, 1.1333), abs=0.07)
    assert mean[1:3] == pytest.approx(case_mean_medmae(one)[1:3])  # as wide as of six
    few = case_mean_medmae(counts_of("se", [0.2, np.nan, 0.4]))
    assert (few.mean, few.cases, few.empty) == (pytest.approx(0.3), 2, 1)
    assert np.isnan(few.low)


def test_what_foreign_metadata_cost_is_what_the_error_rises_by():
    both = pd.concat([counts_of("sme", [0.2] * 4), counts_of("sme", [0.6] * 4, "shuffle")])
    assert reliance(both) == pytest.approx({"normal - shuffle": 0.4})
    curve = share_curve(both, "shuffle").set_index("share")["f1"]
    assert curve[[0.0, 0.5, 1.0]].tolist() == pytest.approx([0.2, 0.4, 0.6])


def told(better_is):
    """What a report says of a comparison in which sme has this medMAE, the others 0.5."""
    random = np.random.default_rng(0)
    noise = 0.01 * random.standard_normal((3, 12))
    counts = pd.concat(
        counts_of(name, level + noise[seed], seed=seed)
        for name, level in (("se", 0.5), ("sme", better_is), ("sme-dummy", 0.5))
        for seed in range(3)
    )
    noisy = counts["medmae"] + 0.002 * random.standard_normal(len(counts))
    results = Results(counts.assign(medmae=noisy), [], {})
    pairs = [["sme", "se"], ["sme", "sme-dummy"]]
    return " ".join(found(Asked(results, Protocol(comparisons=pairs, test="t"))))


def test_a_lower_error_is_told_as_the_better_one():
    good, bad = told(0.3), told(0.7)
    assert "The lowest mean medMAE over all cases is 0.299, of sme; the highest 0.499" in good
    assert "(0: perfect; lower is better)" in good
    assert "sme has a lower medMAE than se" in good
    assert "sme also scores better than the same network fed zeros, so the metadata helped" in good
    assert "sme has a higher medMAE than se" in bad
    assert "Metadata was not shown to help sme" in bad


def objects_table():
    """Two images: 3 real and 2 generated objects, then 1 and 1; a third has none at all."""
    rows = []
    for case, source, areas in (
        ("a", "real", [10, 20, 30]),
        ("a", "generated", [10, 40]),
        ("b", "real", [40]),
        ("b", "generated", [50]),
    ):
        rows += [{"case": case, "source": source, "area_px": float(area)} for area in areas]
    return pd.DataFrame(rows).assign(condition="se", data_seed=0, seed=0)


def test_objects_of_both_kinds_are_compared_by_hand():
    scored = pd.DataFrame({"condition": "se", "data_seed": 0, "seed": 0, "case": ["a", "b", "c"]})
    row = count_row(objects_table(), scored)
    assert (row["real"], row["generated"], row["images"]) == (4, 3, 3)
    assert row["relative error"] == -0.25
    real, generated = np.array([3, 1, 0]), np.array([2, 1, 0])
    assert row["correlation"] == pytest.approx(np.corrcoef(real, generated)[0, 1])
    area = feature_row(objects_table(), "area_px")
    assert (area["real"], area["generated"]) == (25, pytest.approx(100 / 3))
    assert area["relative error"] == pytest.approx(1 / 3)
    assert area["KS"] == pytest.approx(0.75 - 1 / 3)  # up to 30: 3 of 4, and 1 of 3
    assert np.isnan(area["correlation"])  # of two images


def test_pictures_tell_too_bright_and_too_dark_and_whose_outline_it_is():
    real = np.zeros((6, 6), np.float16)
    sample = type("S", (), {"real": real + 0.5, "generated": real + 0.5})()
    sample.generated[0, 0], sample.generated[1, 1] = 1, 0
    drawn = difference(sample)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] > 0  # orange
    assert drawn[1, 1, 2] > drawn[1, 1, 0] > 0  # blue
    assert not drawn[2:].any()
    one, other = np.zeros((6, 6), int), np.zeros((6, 6), int)
    one[:3, :3], other[:3, 3:] = 1, 1
    lines = outlines(real, one, other)
    assert lines[2, 0, 2] > lines[2, 0, 0]  # what ends with the picture has no outline there
    assert lines[2, 5, 0] > lines[2, 5, 2]
    assert not lines[0, 0].any()


@pytest.fixture(scope="session")
def measured():
    """Measure pairs (batch, output of the evaluator) through an engine."""

    def measure(one, path, pairs):
        def step(engine, pair):
            engine.state.batch, output = pair
            return output

        class Loader(list):
            dataset = SimpleNamespace(data=())

        engine = Engine(step)
        PerCase(path, one).attach(engine)
        engine.run(Loader(pairs))

    return measure


SIDE = 48


@pytest.fixture
def evaluated(tmp_path, measured, bind):
    """Two evaluated models on four cases, whose answers are blurred or too dark."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(4):
        objects = np.zeros((SIDE, SIDE), np.uint16)
        for place, (y, x) in enumerate(((3, 4), (24, 8), (10, 28), (30, 30)), 1):
            size = int(random.integers(9, 13))
            objects[y : y + size, x : x + size] = place
        label = (30 + 300 * (objects > 0) + random.integers(0, 9, (SIDE, SIDE))).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"l{number}.tif", label)
        tifffile.imwrite(tmp_path / f"o{number}.tif", objects)
        for plane in range(3):
            tifffile.imwrite(tmp_path / f"i{number}_{plane}.tif", label // (2 + plane))
        rows.append(
            {
                "image": ";".join(f"i{number}_{plane}.tif" for plane in range(3)),
                "label": f"l{number}.tif",
                "magnification": ("20", "40")[number % 2],
                **{"channel": "nuclei", "pixel_um": "1", "instances": f"o{number}.tif"},
                **{"group": f"w{number}", "split": "test"},
            }
        )
    write_table(rows, tmp_path / "table.csv")
    when = {"provenance": "acquisition", "availability": "acquisition"}
    schema = MetadataSchema([Categorical(name="magnification", values=("20", "40"), **when)])
    table = read_table(tmp_path, schema)
    for name, factor in (("se", 0.5), ("sme", 0.9)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        pairs = []
        for item in table.rows:
            label = torch.from_numpy(tifffile.imread(item["label"]).astype(np.float32))[None, None]
            image = torch.cat([label] * 3, 1) / torch.tensor([2.0, 3, 4]).reshape(1, 3, 1, 1)
            batch = {key: [item[key]] for key in ("case", "group", "split")}
            batch |= {"mode": ["normal"], "domain": [item["metadata"]["magnification"]]}
            pairs.append((batch, {"image": image, "label": label, "pred": factor * label}))
            if name == "sme":  # told another magnification it is darker
                wrong = {"image": image, "label": label, "pred": 0.7 * label}
                pairs.append(({**batch, "mode": ["shuffle"]}, wrong))
        finder = ImageObjects(table, {"nuclei": "nuclei"})
        measured(ImageScores(table), folder / "counts.csv", pairs)
        measured(finder, folder / "objects_scores.csv", pairs)
        measured(ImageSamples(finder), folder / "image_samples.npz", pairs)
        told = [
            {**{key: item[key] for key in ("case", "group", "split")}, **item["metadata"]}
            for item in table.rows
        ]
        places = ["volume", "plane", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]
        pd.DataFrame(told).assign(**dict.fromkeys(places, "")).to_csv(
            folder / "cases.csv", index=False
        )
        schema.save(folder / "schema.json")
        bind(folder, modes=("normal", "shuffle") if name == "sme" else ("normal",))
    return tmp_path / "runs"


def test_the_report_of_images_says_and_draws_them(evaluated):
    results = read_single_runs(evaluated)
    assert results.score.name == "medMAE"
    page = write_report(evaluated)
    text = page.read_text()
    assert "The lowest mean medMAE over all cases is" in text
    assert "no overlap" not in text
    assert "foreground pixel" not in text
    assert "When the table is wrong: sme loses 0." in text
    assert "in medMAE (of too few groups for an interval): whether that costs" in text
    told = pd.read_csv(page.parent / "tables" / "told.csv", index_col=0).loc["sme, wrong"]
    assert told["lost"] == pytest.approx(told["medMAE"] * 2 / 3, rel=0.02)  # of 0.3, it was 0.1
    assert told["cases worse"] == 1
    assert "Leakage audit" in text
    assert "size of the label" not in text
    for table in ("f1", "images", "images_domain", "images_objects", "images_features", "objects"):
        assert (page.parent / "tables" / f"{table}.csv").is_file(), table
    objects = pd.read_csv(page.parent / "tables" / "images_objects.csv", index_col=0)
    assert objects.loc["sme, nuclei", ["real", "generated"]].tolist() == [16, 16]
    features = pd.read_csv(page.parent / "tables" / "images_features.csv", index_col=0)
    row = features.loc["se, nuclei, mean_intensity"]
    assert row["relative error"] == pytest.approx(-0.5)
    assert row["KS"] == 1
    assert row["correlation"] == pytest.approx(1)
    summary = json.loads((page.parent / "summary.json").read_text())
    (one,) = summary["conditions"]["se"].values()
    counts = pd.read_csv(evaluated / "se" / "counts.csv")
    assert one["mean"]["medmae"] == pytest.approx(counts["medmae"].mean())
    assert (page.parent / "figures" / "images_sme.png").stat().st_size > 10_000
