"""Whole volumes: their numbers by hand, with several of a patient, and what is said of them."""

import math

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.evaluation.per_case import SPACING
from metaseg_monai.metrics.statistics import score_interval, share_interval
from metaseg_monai.reporting.page import figures_of, tables_of
from metaseg_monai.reporting.tables import cells
from metaseg_monai.reporting.volumes import (
    SIZE_EDGES,
    lesion_table,
    region_table,
    subgroup_table,
    volume_section,
)
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study.design import Protocol

PAIR = Protocol(comparisons=[["sme", "se"]])
OF_SIZE = {"sme, <= 40 mm": 2, "sme, 40-70 mm": 2, "sme, > 70 mm": 1}


def averaged(**columns):
    """Volumes of six patients, the first of whom has two; the same region."""
    groups = ["a", "a", "b", "c", "d", "e", "f"]
    table = pd.DataFrame({"group": groups, "volume": [f"v{n}" for n in range(7)]})
    return table.assign(
        condition="se", region="tumour", dice=0.5, surface_dice=0.5, hd95_mm=3.0, undefined=0,
        lesions=1, lesions_found=1.0, lesions_false=0.0, false_mm3=0.0,
    ).assign(**columns)  # fmt: skip


def test_a_patient_counts_once_however_many_volumes_he_has():
    table = averaged(dice=[0.0, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6])
    row = region_table(table, "tumour").loc["se"]
    assert row["Dice", "mean"] == pytest.approx((0.1 + 5 * 0.6) / 6)
    ends = row["Dice", "low"], row["Dice", "high"]
    assert ends == pytest.approx(score_interval(np.array([0.1, *[0.6] * 5])))  # of six patients
    assert (row["n", "volumes"], row["n", "patients"]) == (7, 6)


def test_patients_behind_each_distance_are_counted():
    known = [math.nan, 3.0, math.nan, 5.0, math.nan, 7.0, math.nan]
    row = region_table(averaged(hd95_mm=known), "tumour").loc["se"]
    assert row["HD95 (mm)", "mean"] == pytest.approx(5)
    assert (row["HD95 (mm)", "patients"], row["n", "patients"]) == (3, 6)
    assert math.isnan(row["HD95 (mm)", "low"])  # of three
    assert not math.isnan(row["Dice", "low"])


def test_lesions_are_pooled_with_an_interval_over_patients():
    table = averaged(
        lesions=[1, 2, 9, 1, 1, 2, 0], lesions_found=[1.0, 2.0, 0.0, 1.0, 0.5, 1.0, 0.0],
        lesions_false=[0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 3.0], false_mm3=[0.0, 7000.0, *[0.0] * 5],
    )  # fmt: skip
    row = lesion_table(table, ["tumour"]).loc["se, tumour"]
    assert row["found", "mean"] == pytest.approx(5.5 / 16)  # mean of the shares: 0.6
    assert row["n"].tolist() == [16, 5, 6]
    ends = share_interval(np.array([3, 0, 1, 0.5, 1]), np.array([3, 9, 1, 1, 2.0]))
    assert (row["found", "low"], row["found", "high"]) == pytest.approx(ends)
    assert row["false per volume", "mean"] == 1
    assert 0 < row["false per volume", "low"] < 0.3
    assert 2 < row["false per volume", "high"] < 6
    assert row["false ml", "mean"] == 1
    assert 0 < row["false ml", "low"] < 0.3 < 2 < row["false ml", "high"] < 9
    none = lesion_table(averaged(lesions=0, lesions_found=0.0), ["tumour"])
    assert math.isnan(none.loc["se, tumour", ("found", "mean")])


def test_patients_of_a_size_are_counted_not_their_volumes_and_stages_end_at_40_and_70_mm():
    table = averaged()
    place = pd.MultiIndex.from_frame(table[["group", "volume"]])
    sizes = pd.Series([30.0, 40.0, 40.1, 70.0, 70.1, 90.0, math.nan], place)
    by_size = subgroup_table(table, ["tumour"], sizes, "mm", SIZE_EDGES["tumour_size_mm"])
    assert by_size["patients"].to_dict() == {
        "se, <= 40 mm": 1, "se, 40-70 mm": 2, "se, > 70 mm": 2, "se, size unknown": 1
    }  # fmt: skip


def test_two_volumes_of_a_patient_may_be_of_two_sizes():
    table = pd.DataFrame({"volume": ["a1", "a2"], "group": "a", "region": "tumour"})
    table = table.assign(condition="sme", dice=[0.5, 0.9])
    sizes = pd.Series({("a", "a1"): 30.0, ("a", "a2"): 90.0})
    by_size = subgroup_table(table, ["tumour"], sizes, "mm", (40, 70))
    assert by_size["tumour"].to_dict() == {"sme, <= 40 mm": 0.5, "sme, > 70 mm": 0.9}
    unknown = subgroup_table(table, ["tumour"], sizes[:0], "mm", (40, 70))
    assert list(unknown.index) == ["sme, size unknown"]


@pytest.fixture
def shown(volumes, monkeypatch):
    """What a section on runs says, and its tables by name."""
    monkeypatch.setitem(SIZE_EDGES, "size", (40, 70))

    def make(protocol=PAIR, ranked=True, **runs):
        runs = {name: one if isinstance(one, list) else [one] for name, one in runs.items()}
        section = volume_section(volumes.results(**runs), protocol, ranked)
        said = [part for part in section.parts if isinstance(part, str)]
        said += [figure.caption for figure in figures_of([section]).values()]
        return " ".join(said), tables_of([section])

    return make


def test_scores_lesions_and_subgroups_by_hand(volumes, shown):
    said, tables = shown(sme=[volumes.run("sme", 0, dice=0.7), volumes.run("sme", 1, dice=0.8)])
    row = tables["volumes_tumour"].values.loc["sme"]
    # seeds 0.7 and 0.8, and 0.00 to 0.04 by patient
    assert row["Dice", "mean"] == pytest.approx(0.77)
    assert row["HD95 (mm)", "mean"] == pytest.approx(4)
    assert row["Dice", "low"] < 0.77 < row["Dice", "high"]
    assert (row["n", "volumes"], row["n", "patients"]) == (5, 5)
    lesions = tables["volumes_lesions"].values.loc["sme, tumour"]
    assert lesions["found", "mean"] == pytest.approx(6 / 10)
    assert (lesions["false per volume", "mean"], lesions["false ml", "mean"]) == (1, 0.5)
    assert lesions["n"].tolist() == [10, 5, 5]
    assert 0.1 < lesions["found", "low"] < 0.6 < lesions["found", "high"] <= 1
    by_size = tables["volumes_by_size"].values
    # a size on an edge belongs below it: 20 and 40, 55 and 70, 90
    assert by_size["patients"].to_dict() == OF_SIZE
    assert by_size.loc["sme, <= 40 mm", "tumour"] == pytest.approx(0.755)
    assert by_size.loc["sme, > 70 mm", "tumour"] == pytest.approx(0.79)
    assert "Every plane of all 5 volumes was scored." in said


def test_volumes_of_3d_networks_have_their_sizes(volumes, shown):
    _, tables = shown(sme=volumes.whole("sme"))
    assert tables["volumes_by_size"].values["patients"].to_dict() == OF_SIZE


def test_subgroups_are_of_volumes_and_of_the_values_of_most_conditions(volumes, shown):
    other = volumes.run("me-unrelated").edit(size=100)
    _, tables = shown(me_unrelated=other, se=volumes.run("se"), sme=volumes.run("sme"))
    table = tables["volumes_by_size"]
    assert table.values.loc["me-unrelated, <= 40 mm", "patients"] == 2
    assert "me-unrelated was given other values of size than se and sme." in table.note


def test_undefined_distances_are_left_out_and_counted(volumes, shown):
    runs = [volumes.run("sme", seed) for seed in range(2)]
    runs[0].edit(name="volumes.csv", hd95_mm=[float("nan")] * 2 + [6.0] * 48)
    runs[1].edit(name="volumes.csv", hd95_mm=8.0)
    row = shown(sme=runs)[1]["volumes_tumour"].values.loc["sme"]
    # one patient has only the second training's 8, the others the mean of 6 and 8
    assert row["HD95 (mm)", "mean"] == pytest.approx((8 + 4 * 7) / 5)
    assert row["HD95 (mm)", "undefined"] == 1


def test_volumes_of_which_only_some_planes_were_scored(volumes, shown):
    run = volumes.run("sme").edit(name="volumes.csv", complete=0)
    said, _ = shown(sme=run)
    assert "Of all 5 volumes only some planes were scored, such as" in said
    assert "not those of whole patients" in said
    run.edit(name="volumes.csv", complete=[1] * 20 + [0] * 30)
    # what one condition did not score whole is not whole
    said, _ = shown(se=volumes.run("se"), sme=run)
    assert "Every plane was scored of 2 of 5 volumes; of the others only some" in said


def test_pixel_size_tolerances_and_what_counts_as_found_are_stated(volumes, shown):
    run = volumes.run("sme")
    said, tables = shown(sme=run)
    assert "All scores of volumes are on pixels of 0.5 mm in planes 3 mm apart" in said
    assert "forgives 1.13288 mm for masses and 1.14982 mm for tumour" in said
    assert "They are not the official KiTS scores" in said
    assert "at least 10 % were predicted" in tables["volumes_lesions"].note
    sides = {"spacing_x_mm": [0.7] + [0.5] * 11, "spacing_y_mm": [0.6] + [0.5] * 11}
    assert "pixels of 0.5 to 0.6 by 0.5 to 0.7 mm" in shown(sme=run.edit(**sides))[0]
    said, _ = shown(sme=run.edit(**dict.fromkeys(SPACING, "")))
    assert "pixels of a size that the runs do not tell" in said


def test_limits_are_those_of_one_training_not_of_their_mean(volumes, shown):
    runs = [volumes.run("sme", seed) for seed in range(2)]
    runs[0].edit(name="volumes.csv", pred_mm3=12000.0)
    runs[1].edit(name="volumes.csv", pred_mm3=8000.0)
    row = shown(sme=runs)[1]["volumes_agreement"].values.loc["sme"]
    # +2 and -2 ml in each of five volumes; the mean of both is right everywhere
    assert row["bias"] == 0
    assert row["upper limit"] == pytest.approx(1.96 * math.sqrt(40 / 9))
    assert (row["bias, low"], row["bias, high"]) == pytest.approx((0, 0))  # patients are drawn
    assert (row["volumes"], row["trainings"]) == (5, 2)


def test_a_bias_that_grows_is_told_and_conditions_left_out_are_named(volumes, shown):
    runs = {f"c{number}": volumes.run(f"c{number}") for number in range(7)}
    true = np.repeat([10.0, 20, 40, 60, 90], 10) * 1000
    for name, pred in (("c0", true / 2), ("c1", true + 1000), ("c2", true * 2)):
        runs[name].edit(name="volumes.csv", true_mm3=true, pred_mm3=pred)
    said, _ = shown(**runs)
    # half of each is missing: -0.5 of the true volume, which is 4 / 3 of the mean of both
    assert "c0 -0.67 [-0.67, -0.67], c2 +0.67 [+0.67, +0.67], c3" in said
    assert "Not drawn, but among the numbers: c6." in said


def test_of_four_patients_there_is_no_interval(volumes, shown):
    true = np.repeat([10.0, 20, 40, 60], 10) * 1000
    run = volumes.run("se").edit(lambda table: table[table["group"] != "p4"], "volumes.csv")
    said, tables = shown(se=run.edit(name="volumes.csv", true_mm3=true, pred_mm3=2 * true))
    assert "changes with the volume" not in said
    for name in ("volumes_agreement", "volumes_tumour", "volumes_lesions"):
        row = zip(tables[name].heads, cells(tables[name])[0], strict=True)
        ends = [cell.text for head, cell in row if head[-1].endswith(("low", "high"))]
        assert set(ends) == {"-"}, name


@pytest.mark.parametrize(
    ("dice", "ranked", "told"),
    [
        ((0.3, 0.8), True, "0.820 for sme, the highest; the lowest is 0.320, for se."),
        ((0.3, 0.3001), True, "alike for se and sme: 0.320."),
        ((0.3, 0.8), False, "0.320 for se and 0.820 for sme."),
        ((0.3,), True, "0.320 for se."),
    ],
)
def test_what_prints_alike_is_said_to_be_alike(volumes, shown, dice, ranked, told):
    names = ("se", "sme")[: len(dice)]
    runs = {name: volumes.run(name, dice=d) for name, d in zip(names, dice, strict=True)}
    said = shown(ranked=ranked, **runs)[0]
    start = "The mean Dice of tumour over patients is"
    assert f"{start} {told}" in said


def test_what_is_no_lesion_has_no_lesion_scores(volumes, shown):
    def with_organs(table):
        organs = table[table["region"] == "masses"].assign(region="kidney_and_masses")
        return pd.concat([organs, table])

    _, tables = shown(sme=volumes.run("sme").edit(with_organs, "volumes.csv"))
    assert "volumes_kidney_and_masses" in tables
    assert set(tables["volumes_lesions"].values.index) == {"sme, masses", "sme, tumour"}


def test_who_has_no_volumes_or_fewer_regions_is_shown(volumes, shown):
    less = volumes.run("less").edit(lambda one: one[one["region"] == "masses"], "volumes.csv")
    runs = {name: [volumes.run(name, seed) for seed in range(2)] for name in ("sme", "se")}
    for run in (runs["sme"][1], *runs["se"]):
        (run.folder / "volumes.csv").unlink()
    said, tables = shown(**runs, less=less)
    assert "No volumes were scored of se." in said
    assert "Of sme only 1 of 2 trainings have scores of volumes." in said
    mean = tables["volumes_tumour"].values["Dice", "mean"]
    assert math.isnan(mean["less"])
    assert mean["sme"] == pytest.approx(0.82)


def uneven(run, seed=0):
    """Not the same gain in every patient."""
    table = pd.read_csv(run.folder / "volumes.csv")
    gain = 0.01 * table["group"].str[1].astype(int) + 0.001 * seed
    return run.edit(name="volumes.csv", dice=table["dice"] + gain)


def test_planned_comparisons_on_volumes(volumes, shown):
    gains = [0.1 + 0.001 * seed for seed in range(3)]
    sme = [uneven(volumes.run("sme", n, gain=gain), n) for n, gain in enumerate(gains)]
    se = [volumes.run("se", seed, modes=("normal",)) for seed in range(3)]
    everywhere = PAIR.model_copy(update={"test": "t", "domain": "elsewhere"})
    said, tables = shown(everywhere, sme=sme, se=se)
    row = tables["volumes_comparisons"].values.loc["sme - se"]
    assert row["difference"] == pytest.approx(0.1 + 0.02 + 0.002)
    assert row["patients"] == 5
    assert "sme has a higher Dice of tumour of whole volumes than se: +0.122" in said
    said, _ = shown(PAIR.model_copy(update={"alpha": 0.3}), sme=sme[0], se=se[0])
    assert "a higher Dice of tumour of whole volumes than se in this one training" in said


def test_no_difference_is_said_plainly_and_what_was_not_run_is_named(volumes, shown):
    same = {name: [volumes.run(name, seed) for seed in range(2)] for name in ("sme", "se")}
    said, _ = shown(Protocol(comparisons=[["sme", "se"], ["sme", "film"]]), **same)
    assert "No difference of sme and se in the Dice of tumour of whole volumes was shown" in said
    assert "Planned but not made on volumes: sme - film" in said


def test_a_report_of_evaluated_models_holds_all_of_it(tmp_path, volumes, bind):
    run = volumes.run("sme", follows=1)
    volumes.samples(run, ("normal", "fixed:size=10", "fixed:size=160"))
    models = tmp_path / "models"
    models.mkdir()
    run.folder.rename(models / "my run")  # a name that no file of the report can have
    titles = ("Whole volumes", "Response to a continuous value", "Leakage audit",
              "Where the metadata comes from")  # fmt: skip

    def headings():
        bind(models / "my run")
        text = write_report(models).with_suffix(".md").read_text(encoding="utf-8")
        return [text.count(f"## {title}") for title in titles]

    assert headings() == [1] * 4
    assert (models / "figures" / "montage_size_my_run-f3a1a0b5.png").is_file()
    for name in ("cases.csv", "schema.json", "volumes.csv"):
        (models / "my run" / name).unlink()
    assert headings() == [0] * 4
