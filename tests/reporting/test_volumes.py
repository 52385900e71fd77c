"""Whole volumes: their numbers by hand, with several of a patient, and what is said of them."""

import math

import pandas as pd
import pytest

from metaseg_monai.reporting.page import figures_of, tables_of
from metaseg_monai.reporting.tables import cells
from metaseg_monai.reporting.volumes import (
    SIZE_EDGES,
    lesion_table,
    region_table,
    size_group,
    subgroup_table,
    volume_section,
)
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study.design import Protocol

PAIR = Protocol(comparisons=[["sme", "se"]])
EDGES = {"size": (40, 70)}


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
    # of 6^6 samples 6.7 hold the first patient more often than four times, one five times of six
    ends = row["Dice", "low"], row["Dice", "high"]
    assert ends == pytest.approx(((4 * 0.1 + 2 * 0.6) / 6, 0.6))
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
    # one of 3125 samples of those with a lesion holds b alone, five b four times and d
    assert row["found", "low"] == pytest.approx(0.5 / 37)
    assert row["found", "high"] == pytest.approx(1)
    assert row["false per volume", "mean"] == 1
    assert row["false per volume", "low"] == pytest.approx(0)
    assert 2 < row["false per volume", "high"] < 3
    assert row["false ml", "mean"] == 1
    assert row["false ml", "low"] == 0 < row["false ml", "high"] < 3.5


def test_few_patients_have_no_interval_of_their_lesions():
    few = averaged().iloc[:5]  # four patients
    row = lesion_table(few, ["tumour"]).loc["se, tumour"]
    assert (row["found", "mean"], row["n", "patients"]) == (1, 4)
    ends = [value for name, value in row.items() if name[1] in ("low", "high")]
    assert [math.isnan(value) for value in ends] == [True] * 6
    none = lesion_table(averaged(lesions=0, lesions_found=0.0), ["tumour"])
    assert math.isnan(none.loc["se, tumour", ("found", "mean")])


def test_the_stages_end_at_40_and_70_mm():
    edges = SIZE_EDGES["tumour_size_mm"]
    told = [size_group(size, edges, "mm") for size in (40, 40.5, 70, 70.5)]
    assert told == ["<= 40 mm", "40-70 mm", "40-70 mm", "> 70 mm"]
    assert [size_group(70.5, e, "mm") for e in SIZE_EDGES.values()] == ["> 70 mm"]


def test_patients_of_a_size_are_counted_not_their_volumes():
    table = averaged()
    sizes = pd.Series(30.0, pd.MultiIndex.from_frame(table[["group", "volume"]]))
    by_size = subgroup_table(table, ["tumour"], sizes, "mm", (40, 70))
    assert by_size["patients"].to_dict() == {"se, <= 40 mm": 6}


def told(section):
    return " ".join(part for part in section.parts if isinstance(part, str))


def change(run, **columns):
    path = run.folder / "volumes.csv"
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def test_scores_lesions_and_subgroups_by_hand(volumes):
    runs = [volumes.run("sme", 0, dice=0.7), volumes.run("sme", 1, dice=0.8)]
    section = volume_section(volumes.results(sme=runs), PAIR, EDGES)
    tables = tables_of([section])
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
    assert 0.5 <= lesions["found", "low"] < 0.6 < lesions["found", "high"] <= 1
    by_size = tables["volumes_by_size"].values
    # a size on an edge belongs below it: 20 and 40, 55 and 70, 90
    assert by_size["patients"].to_dict() == {
        "sme, <= 40 mm": 2,
        "sme, 40-70 mm": 2,
        "sme, > 70 mm": 1,
    }
    assert by_size.loc["sme, <= 40 mm", "tumour"] == pytest.approx(0.755)
    assert by_size.loc["sme, > 70 mm", "tumour"] == pytest.approx(0.79)
    assert "Every plane of all 5 volumes was scored." in told(section)


def test_agreement_in_ml(volumes):
    section = volume_section(volumes.results(sme=[volumes.run("sme", dice=0.5)]), PAIR)
    row = tables_of([section])["volumes_agreement"].values.loc["sme"]
    # 10 ml, predicted 5.0 to 5.4 ml
    assert row["bias"] == pytest.approx(-4.8)
    sd = math.sqrt(0.1 / 4)
    assert row["upper limit"] == pytest.approx(-4.8 + 1.96 * sd)
    assert "volumes_agreement" in figures_of([section])


def test_undefined_distances_are_left_out_and_counted(volumes):
    runs = [volumes.run("sme", seed) for seed in range(2)]
    change(runs[0], hd95_mm=[float("nan")] * 2 + [6.0] * 48)
    change(runs[1], hd95_mm=8.0)
    table = tables_of([volume_section(volumes.results(sme=runs), PAIR)])["volumes_tumour"].values
    # one patient has only the second training's 8, the others the mean of 6 and 8
    assert table.loc["sme", ("HD95 (mm)", "mean")] == pytest.approx((8 + 4 * 7) / 5)
    assert table.loc["sme", ("HD95 (mm)", "undefined")] == 1


def test_volumes_of_which_only_some_planes_were_scored(volumes):
    run = volumes.run("sme")
    change(run, complete=0)
    section = volume_section(volumes.results(sme=[run]), PAIR)
    assert "Of all 5 volumes only some planes were scored, such as" in told(section)
    assert "not those of whole patients" in told(section)
    change(run, complete=[1] * 20 + [0] * 30)
    section = volume_section(volumes.results(sme=[run]), PAIR)
    assert "Every plane was scored of 2 of 5 volumes; of the others only some" in told(section)
    other = volumes.run("se")  # what one condition did not score whole is not whole
    assert "Every plane was scored of 2 of 5" in told(
        volume_section(volumes.results(se=[other], sme=[run]), PAIR)
    )


def test_pixel_size_tolerances_and_what_counts_as_found_are_stated(volumes):
    run = volumes.run("sme")
    section = volume_section(volumes.results(sme=[run]), PAIR)
    said = told(section)
    assert "All scores of volumes are on pixels of 0.5 mm in planes 3 mm apart" in said
    assert "forgives 1.1329 mm for masses and 1.1498 mm for tumour" in said
    assert "They are not the official KiTS scores" in said
    assert "at least 10 % were predicted" in tables_of([section])["volumes_lesions"].note
    cases = pd.read_csv(run.folder / "cases.csv")
    cases.loc[0, ["spacing_x_mm", "spacing_y_mm"]] = [0.7, 0.6]
    cases.to_csv(run.folder / "cases.csv", index=False)
    said = told(volume_section(volumes.results(sme=[run]), PAIR))
    assert "pixels of 0.5 to 0.6 by 0.5 to 0.7 mm" in said
    spacing = [name for name in cases if name.startswith("spacing")]
    cases.assign(**dict.fromkeys(spacing, "")).to_csv(run.folder / "cases.csv", index=False)
    said = told(volume_section(volumes.results(sme=[run]), PAIR))
    assert "pixels of a size that the runs do not tell" in said


def test_limits_are_those_of_one_training_not_of_their_mean(volumes):
    runs = [volumes.run("sme", seed) for seed in range(2)]
    change(runs[0], pred_mm3=12000.0)
    change(runs[1], pred_mm3=8000.0)
    section = volume_section(volumes.results(sme=runs), PAIR)
    row = tables_of([section])["volumes_agreement"].values.loc["sme"]
    # +2 and -2 ml in each of five volumes; the mean of both is right everywhere
    assert row["bias"] == 0
    assert row["upper limit"] == pytest.approx(1.96 * math.sqrt(40 / 9))
    assert (row["bias, low"], row["bias, high"]) == pytest.approx((0, 0))  # patients are drawn
    assert (row["volumes"], row["trainings"]) == (5, 2)


def test_a_bias_that_grows_is_told_and_conditions_left_out_are_named(volumes):
    runs = {f"c{number}": [volumes.run(f"c{number}")] for number in range(7)}
    true = [v for size in (10, 20, 40, 60, 90) for v in [size * 1000.0] * 10]
    change(runs["c0"][0], true_mm3=true, pred_mm3=[0.5 * v for v in true])
    change(runs["c1"][0], true_mm3=true, pred_mm3=[v + 1000 for v in true])
    section = volume_section(volumes.results(**runs), PAIR)
    # half of each is missing: -0.5 of the true volume, which is 4 / 3 of the mean of both
    assert "c0 -0.67 [-0.67, -0.67]" in told(section)
    assert "c1 +" not in told(section)
    caption = figures_of([section])["volumes_agreement"].caption
    assert "Not drawn, but among the numbers: c6." in caption


def test_a_bias_that_grows_upwards_is_told_too_and_one_of_few_patients_is_not(volumes):
    run = volumes.run("se")
    true = [v for size in (10, 20, 40, 60, 90) for v in [size * 1000.0] * 10]
    change(run, true_mm3=true, pred_mm3=[2 * v for v in true])
    assert "se +0.67 [+0.67, +0.67]" in told(volume_section(volumes.results(se=[run]), PAIR))
    table = pd.read_csv(run.folder / "volumes.csv")
    table[table["group"] != "p4"].to_csv(run.folder / "volumes.csv", index=False)
    section = volume_section(volumes.results(se=[run]), PAIR)
    assert "changes with the volume" not in told(section)
    tables = tables_of([section])
    for name in ("volumes_agreement", "volumes_tumour", "volumes_lesions"):
        shown = {head[-1]: cell.text for head, cell in zip(
            tables[name].heads, cells(tables[name])[0], strict=True
        )}  # fmt: skip
        ends = [text for head, text in shown.items() if head.endswith(("low", "high"))]
        assert ends, name
        assert set(ends) == {"-"}, name


def test_what_prints_alike_is_said_to_be_alike(volumes):
    def said(**dice):
        runs = {name: [volumes.run(name + str(place), dice=value)] for place, (name, value) in
                enumerate(dice.items())}  # fmt: skip
        return told(volume_section(volumes.results(**runs), PAIR))

    start = "The mean Dice of tumour over patients is"
    assert f"{start} 0.820 for sme, the highest; the lowest is 0.320, for se." in said(
        se=0.3, sme=0.8
    )
    (volumes.folder / "se0").rename(volumes.folder / "before")
    assert f"{start} alike for se and me: 0.320." in said(se=0.3, me=0.3001)
    (volumes.folder / "se0").rename(volumes.folder / "earlier")
    (volumes.folder / "me1").rename(volumes.folder / "later")
    runs = {"se": [volumes.run("se0", dice=0.3)], "me": [volumes.run("me1", dice=0.8)]}
    apart = told(volume_section(volumes.results(**runs), PAIR, ranked=False))
    assert f"{start} 0.320 for se and 0.820 for me." in apart
    alone = told(volume_section(volumes.results(x=[volumes.run("x", dice=0.3)]), PAIR))
    assert f"{start} 0.320 for x." in alone
    assert "highest" not in alone


def test_what_is_no_lesion_has_no_lesion_scores(volumes):
    run = volumes.run("sme")
    table = pd.read_csv(run.folder / "volumes.csv")
    organs = table[table["region"] == "masses"].assign(region="kidney_and_masses")
    pd.concat([organs, table]).to_csv(run.folder / "volumes.csv", index=False)
    tables = tables_of([volume_section(volumes.results(sme=[run]), PAIR)])
    assert "volumes_kidney_and_masses" in tables
    assert set(tables["volumes_lesions"].values.index) == {"sme, masses", "sme, tumour"}


def test_volumes_of_3d_networks_have_their_sizes(volumes):
    section = volume_section(volumes.results(sme=[volumes.whole("sme")]), PAIR, EDGES)
    by_size = tables_of([section])["volumes_by_size"].values
    assert by_size["patients"].to_dict() == {
        "sme, <= 40 mm": 2,
        "sme, 40-70 mm": 2,
        "sme, > 70 mm": 1,
    }


def test_conditions_without_volumes_are_named(volumes):
    sme = [volumes.run("sme", seed) for seed in range(2)]
    se = [volumes.run("se", seed) for seed in range(2)]
    (sme[1].folder / "volumes.csv").unlink()
    for run in se:
        (run.folder / "volumes.csv").unlink()
    said = told(volume_section(volumes.results(sme=sme, se=se), PAIR))
    assert "No volumes were scored of se." in said
    assert "Of sme only 1 of 2 trainings have scores of volumes." in said


def test_regions_of_every_condition_are_shown(volumes):
    less, more = volumes.run("se"), volumes.run("sme")
    table = pd.read_csv(less.folder / "volumes.csv")
    table[table["region"] == "masses"].to_csv(less.folder / "volumes.csv", index=False)
    tables = tables_of([volume_section(volumes.results(se=[less], sme=[more]), PAIR)])
    assert math.isnan(tables["volumes_tumour"].values.loc["se", ("Dice", "mean")])
    assert tables["volumes_tumour"].values.loc["sme", ("Dice", "mean")] == pytest.approx(0.82)


def test_subgroups_are_of_volumes_and_of_the_values_of_most_conditions(volumes):
    other = volumes.run("me-unrelated")
    cases = pd.read_csv(other.folder / "cases.csv").assign(size=100)
    cases.to_csv(other.folder / "cases.csv", index=False)
    runs = {"me_unrelated": [other], "se": [volumes.run("se")], "sme": [volumes.run("sme")]}
    table = tables_of([volume_section(volumes.results(**runs), PAIR, EDGES)])["volumes_by_size"]
    assert table.values.loc["me-unrelated, <= 40 mm", "patients"] == 2
    assert "me-unrelated was given other values of size than se and sme." in table.note


def test_two_volumes_of_a_patient_may_be_of_two_sizes():
    table = pd.DataFrame({"volume": ["a1", "a2"], "group": "a", "region": "tumour"})
    table = table.assign(condition="sme", dice=[0.5, 0.9])
    sizes = pd.Series({("a", "a1"): 30.0, ("a", "a2"): 90.0})
    by_size = subgroup_table(table, ["tumour"], sizes, "mm", (40, 70))
    assert by_size["tumour"].to_dict() == {"sme, <= 40 mm": 0.5, "sme, > 70 mm": 0.9}
    unknown = subgroup_table(table, ["tumour"], sizes[:0], "mm", (40, 70))
    assert list(unknown.index) == ["sme, size unknown"]


def test_a_single_training_is_told_as_one(volumes):
    sme, se = volumes.run("sme", gain=0.1), volumes.run("se", modes=("normal",))
    table = pd.read_csv(sme.folder / "volumes.csv")
    change(sme, dice=table["dice"] + 0.01 * table["group"].str[1].astype(int))
    loose = PAIR.model_copy(update={"alpha": 0.3})
    said = told(volume_section(volumes.results(sme=[sme], se=[se]), loose))
    assert "a higher Dice of tumour of whole volumes than se in this one training" in said


def test_planned_comparisons_on_volumes(volumes):
    sme = [volumes.run("sme", seed, gain=0.1 + 0.001 * seed) for seed in range(3)]
    se = [volumes.run("se", seed, modes=("normal",)) for seed in range(3)]
    for seed, run in enumerate(sme):  # not the same gain in every patient
        table = pd.read_csv(run.folder / "volumes.csv")
        change(run, dice=table["dice"] + 0.01 * table["group"].str[1].astype(int) + 0.001 * seed)
    everywhere = PAIR.model_copy(update={"test": "t", "domain": "elsewhere"})
    section = volume_section(volumes.results(sme=sme, se=se), everywhere)
    row = tables_of([section])["volumes_comparisons"].values.loc["sme - se"]
    assert row["difference"] == pytest.approx(0.1 + 0.02 + 0.002)
    assert row["patients"] == 5
    assert "sme has a higher Dice of tumour of whole volumes than se: +0.122" in told(section)


def test_no_difference_is_said_plainly_and_what_was_not_run_is_named(volumes):
    same = {name: [volumes.run(name, seed) for seed in range(2)] for name in ("sme", "se")}
    planned = Protocol(comparisons=[["sme", "se"], ["sme", "film"]])
    section = volume_section(volumes.results(**same), planned)
    said = told(section)
    assert "No difference of sme and se in the Dice of tumour of whole volumes was shown" in said
    assert "Planned but not made on volumes: sme - film" in told(section)


def test_runs_without_volumes_have_no_such_section(volumes):
    run = volumes.run("sme")
    (run.folder / "volumes.csv").unlink()
    assert volume_section(volumes.results(sme=[run]), PAIR) is None


def test_a_report_of_evaluated_models_holds_all_of_it(tmp_path, volumes):
    run = volumes.run("sme", follows=1)
    volumes.samples(run, ("normal", "fixed:size=10", "fixed:size=160"))
    (tmp_path / "models").mkdir()
    run.folder.rename(tmp_path / "models" / "sme")
    write_report(tmp_path / "models")
    text = (tmp_path / "models" / "report.md").read_text(encoding="utf-8")
    wanted = (
        "## Whole volumes",
        "## Response to a continuous value",
        "## Where the metadata comes from",
        "## Leakage audit",
    )
    assert [text.count(heading) for heading in wanted] == [1] * 4
    for name in ("cases.csv", "schema.json", "volumes.csv"):
        (tmp_path / "models" / "sme" / name).unlink()
    write_report(tmp_path / "models")
    text = (tmp_path / "models" / "report.md").read_text(encoding="utf-8")
    assert not any(heading in text for heading in wanted)
