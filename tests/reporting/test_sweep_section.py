import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata import Continuous
from metaseg_monai.reporting.page import figures_of, tables_of
from metaseg_monai.reporting.response import response_section, responses, swept_areas

FIELD = Continuous(
    name="size", unit="mm", range=(5, 250), provenance="label-derived", availability="pre-operative"
)


def section_of(volumes, **conditions):
    return response_section(volumes.results(**conditions))


def test_a_network_that_follows_and_one_that_cannot(volumes):
    runs = [volumes.run("sme", 0, follows=1), volumes.run("sme", 1, follows=1)]
    volumes.samples(runs[0])
    section = section_of(volumes, sme=runs, se=[volumes.run("se", modes=("normal",))])
    assert (
        "sme follows size: class 2 grows with size in 100 % of the 10 cases whose label"
        in section.parts[0]
    )
    assert set(figures_of([section])) == {"response_size", "montage_size_sme"}
    assert "Training values: 15 to 80 mm" in figures_of([section])["response_size"].caption
    tables = tables_of([section])
    assert tables["monotone_size"].values.loc["sme, class 2", "monotone"] == 1
    assert tables["monotone_size"].values.loc["sme, class 2", "cases"] == 10
    area = tables["response_size_class2"].values
    assert list(area.index) == ["10", "40", "160"]
    assert area["training", "holds it"].tolist() == [False, True, False]
    # label of a patient: size^2 and half of it, so at 40 mm the area is 40 x size x 3 / 4 pixels
    # of 0.25 mm2; mean size 55
    assert area.loc["40", ("sme", "mean")] == pytest.approx(40 * 55 * 0.75 * 0.25, rel=1e-3)


def test_whole_volumes_are_measured_in_ml(volumes):
    runs = {"sme": [volumes.whole("sme", follows=1)], "se": [volumes.whole("se")]}
    section = section_of(volumes, **runs)
    table = tables_of([section])["response_size_class2"]
    assert table.title == "Volume of class 2 (ml) at each size"
    # a ball of d mm has pi / 6 d^3 mm3, and at 40 mm 40 / d of it is predicted
    balls = [math.pi / 6 * d**2 * 40 / 1000 for d in (20, 40, 55, 70, 90)]
    assert table.values.loc["40", ("sme", "mean")] == pytest.approx(np.mean(balls), rel=1e-3)
    assert figures_of([section])["response_size"].caption.startswith("Predicted volume over")
    swept = swept_areas(volumes.results(**runs), FIELD)
    assert (swept.unit, swept.what) == ("ml", "volume")
    assert swept.normal["se"]["scale"].unique().tolist() == pytest.approx([0.75 / 1000])


def test_slices_and_whole_volumes_have_only_pixels_in_common(volumes):
    runs = {"sme": [volumes.whole("sme", follows=1)], "me": [volumes.run("me", follows=1)]}
    swept = swept_areas(volumes.results(**runs), FIELD)
    assert (swept.unit, swept.what) == ("pixels", "area")
    assert swept.normal["me"]["scale"].unique().tolist() == [1.0]


def test_level_lines_are_means_over_groups(volumes):
    run = volumes.run("sme", follows=1)
    fewer = run.counts[run.counts["case"] != "p4_1"]  # one slice of the largest patient
    results = volumes.results(sme=[replace(run, counts=fewer)])
    drawn = responses(swept_areas(results, FIELD), {}, {})["class 2"]
    sizes = [0.75 * size**2 for size in (20, 40, 55, 70)]  # mean of size^2 and half of it
    assert drawn.true == pytest.approx(0.25 * np.mean([*sizes, 90**2]), rel=1e-3)


def test_a_flat_network_is_said_to_be_flat(volumes):
    section = section_of(volumes, me=[volumes.run("me", follows=0)])
    assert section.parts[0] == "me does not respond to size."
    assert tables_of([section])["monotone_size"].values.loc["me, class 2", "flat"] == 1


def test_a_network_that_shrinks_does_not_follow(volumes):
    section = section_of(volumes, me=[volumes.run("me", follows=-0.5)])
    assert "me does not follow size reliably: class 2 grows with size in 0 %" in section.parts[0]


def test_what_is_never_predicted_counts_against_a_network(volumes):
    run = volumes.run("sme", follows=1)
    silent = run.counts["case"].isin(["p0_0", "p1_0", "p2_0"])  # of ten: three tell nothing
    run.counts.loc[silent, "fn"] += run.counts.loc[silent, "tp"]
    run.counts.loc[silent, ["tp", "fp"]] = 0
    section = section_of(volumes, sme=[run])
    told = "sme does not follow size reliably: class 2 grows with size in 70 % of the 10 cases"
    assert told in section.parts[0]
    row = tables_of([section])["monotone_size"].values.loc["sme, class 2"]
    assert (row["monotone"], row["never predicted"], row["cases"]) == pytest.approx((0.7, 0.3, 10))


def test_a_network_follows_from_four_fifths_of_its_cases(volumes):
    run = volumes.run("sme", follows=1)
    silent = run.counts["case"].isin(["p0_0", "p1_0"])
    run.counts.loc[silent, "fn"] += run.counts.loc[silent, "tp"]
    run.counts.loc[silent, ["tp", "fp"]] = 0
    told = section_of(volumes, sme=[run]).parts[0]
    assert "sme follows size: class 2 grows with size in 80 % of the 10 cases" in told


def test_training_values_are_those_of_the_training_cases_with_both_ends(volumes):
    run = volumes.run("sme", follows=1)
    cases = pd.read_csv(run.folder / "cases.csv")
    cases.loc[cases["case"] == "t0", "size"] = 10.0
    cases.loc[cases["case"] == "t1", "size"] = 160.0
    other = cases.iloc[-1:].assign(case="v0", group="v0", volume="v0", split="val", size=240.0)
    pd.concat([cases, other]).to_csv(run.folder / "cases.csv", index=False)
    section = section_of(volumes, sme=[run])
    assert "Training values: 10 to 160 mm" in figures_of([section])["response_size"].caption
    area = tables_of([section])["response_size_class2"].values
    assert area["training", "holds it"].tolist() == [True, True, True]


def test_a_network_that_reads_metadata_but_was_not_swept_is_not_drawn_flat(volumes):
    runs = {
        "sme": [volumes.run("sme", follows=1)],
        "me_unrelated": [volumes.run("me-unrelated", modes=("normal", "missing"))],
        "se": [volumes.run("se", modes=("normal",))],
    }
    swept = swept_areas(volumes.results(**runs), FIELD)
    assert set(swept.normal) == {"sme", "se"}
    caption = figures_of([section_of(volumes, **runs)])["response_size"].caption
    assert "Not drawn, because asked with no other value: me-unrelated." in caption


def test_the_training_range_is_that_of_most_swept_conditions_in_any_order(volumes):
    other = volumes.run("me", follows=1)
    cases = pd.read_csv(other.folder / "cases.csv").assign(size=33)
    cases.to_csv(other.folder / "cases.csv", index=False)
    runs = {n: [volumes.run(n, follows=1)] for n in ("sme", "film")}
    caption = figures_of([section_of(volumes, me=[other], **runs)])["response_size"].caption
    assert "Training values: 15 to 80 mm" in caption
    assert "me was given other values of size than sme and film." in caption


def test_without_spacing_areas_are_pixels(volumes):
    run = volumes.run("sme", follows=1)
    cases = pd.read_csv(run.folder / "cases.csv").assign(spacing_y_mm="")
    cases.to_csv(run.folder / "cases.csv", index=False)
    known = volumes.run("me", follows=1)  # whose areas would be others than in pixels
    area = tables_of([section_of(volumes, sme=[run], me=[known])])["response_size_class2"]
    assert "(pixels)" in area.title
    for name in ("sme", "me"):
        assert area.values.loc["40", (name, "mean")] == pytest.approx(40 * 55 * 0.75, rel=1e-3)


def test_older_runs_have_no_such_section(volumes):
    plain = volumes.run("se", modes=("normal",))
    assert section_of(volumes, se=[plain]) is None
    swept = volumes.run("sme", follows=1)
    (swept.folder / "schema.json").unlink()
    assert section_of(volumes, sme=[swept]) is None


def test_damaged_files_are_named(volumes):
    run = volumes.run("sme", follows=1)
    cases = pd.read_csv(run.folder / "cases.csv")
    cases.iloc[1:].to_csv(run.folder / "cases.csv", index=False)
    with pytest.raises(DataError, match=r"cases\.csv lacks case p0_0 of counts\.csv"):
        section_of(volumes, sme=[run])
    pd.concat([cases, cases.iloc[:1]]).to_csv(run.folder / "cases.csv", index=False)
    with pytest.raises(DataError, match="case p0_0 stands twice"):
        section_of(volumes, sme=[run])
    (run.folder / "schema.json").write_text("{}")
    with pytest.raises(MetadataError, match=r"schema\.json: not a metadata schema"):
        section_of(volumes, sme=[run])
