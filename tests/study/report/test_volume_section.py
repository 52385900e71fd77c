import math

import pandas as pd
import pytest

from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.document import figures_of, tables_of
from metaseg_monai.study.report.volume_section import volume_section
from metaseg_monai.study.report.write import write_report

PAIR = Protocol(comparisons=[["sme", "se"]])
EDGES = {"size": (40, 70)}


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
    lesions = tables["volumes_lesions"].values.loc["sme", "tumour"]
    assert lesions["found"] == pytest.approx(6 / 10)
    assert (lesions["of"], lesions["false per volume"], lesions["false ml"]) == (10, 1, 0.5)
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
    assert "None of 5 volumes were scored on every plane" in told(section)
    assert "not those of whole patients" in told(section)


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
    assert "sme has a higher Dice of tumour than se: +0.122" in told(section)


def test_no_difference_is_said_plainly_and_what_was_not_run_is_named(volumes):
    same = {name: [volumes.run(name, seed) for seed in range(2)] for name in ("sme", "se")}
    planned = Protocol(comparisons=[["sme", "se"], ["sme", "film"]])
    section = volume_section(volumes.results(**same), planned)
    assert "No difference of sme and se in the Dice of tumour was shown" in told(section)
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
