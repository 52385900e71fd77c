import math
from dataclasses import replace

import pandas as pd
import pytest

from metaseg_monai.reporting.audit import source_section
from metaseg_monai.reporting.page import tables_of


def test_sources_stand_side_by_side(volumes):
    runs = [volumes.run("sme", seed) for seed in range(2)]
    results = volumes.results(sme=runs, se=[volumes.run("se", modes=("normal",))])
    section = source_section(results)
    table = tables_of([section])["sources_class2"].values
    assert list(table.columns) == ["true", "predicted", "unknown", "x0.5", "foreign"]
    # nine of ten pixels are right with true metadata, eight of ten with any other
    assert table.loc["sme", "true"] == pytest.approx(0.9, abs=0.001)
    assert table.loc["sme", "unknown"] == pytest.approx(0.8, abs=0.001)
    assert math.isnan(table.loc["se", "unknown"])
    assert "sme: 0.900 with true values, with predicted values 0.800" in section.parts[0]
    dice = tables_of([section])["sources_volumes"].values
    assert dice.loc["sme", "true"] == pytest.approx(0.82)
    assert dice.loc["sme", "unknown"] == pytest.approx(0.52)


def test_it_is_said_when_the_metadata_does_not_matter(volumes):
    run = volumes.run("me")
    one = run.counts["mode"] == "normal"
    for column in ("tp", "fp", "fn"):
        by_case = run.counts[one].set_index("case")[column]
        run.counts[column] = run.counts["case"].map(by_case)
    section = source_section(volumes.results(me=[run]))
    assert "me scores the same whatever metadata it gets (0.900)." in section.parts[0]


def test_a_condition_without_volumes_does_not_take_those_of_the_others(volumes):
    runs = {name: [volumes.run(name, seed) for seed in range(2)] for name in ("se", "sme", "me")}
    for run in (*runs["se"], runs["me"][1]):
        (run.folder / "volumes.csv").unlink()
    table = tables_of([source_section(volumes.results(**runs))])["sources_volumes"]
    assert table.values.loc["sme", "unknown"] == pytest.approx(0.52)
    assert table.values.loc["me", "true"] == pytest.approx(0.82)
    assert table.values.loc["se"].isna().all()
    assert "No volumes were scored of se. Of me only 1 of 2 trainings" in table.note


def test_the_sentence_is_of_the_class_that_the_protocol_is_about(volumes):
    run = volumes.run("sme")
    easy = run.counts.assign(**{"class": 1}, tp=50, fp=0, fn=0)
    both = replace(run, counts=pd.concat([run.counts, easy], ignore_index=True))
    results = volumes.results(sme=[both])
    section = source_section(results, 2)
    assert section.parts[0].startswith("Pooled F1, class 2: sme: 0.900 with true values")
    assert section.parts[1].name == "sources_class2"
    assert source_section(results).parts[0].startswith("Pooled F1, mean of the classes'")


def test_it_is_said_who_reads_no_metadata_and_who_was_given_other_values(volumes):
    other = volumes.run("me-unrelated", modes=("normal", "missing"))
    cases = pd.read_csv(other.folder / "cases.csv").assign(size=33)
    cases.to_csv(other.folder / "cases.csv", index=False)
    se = volumes.run("se", modes=("normal",))
    results = volumes.results(se=[se], sme=[volumes.run("sme")], me_unrelated=[other])
    note = tables_of([source_section(results)])["sources_class2"].note
    assert note.startswith("se reads no metadata and has one score.")
    assert "me-unrelated was given other values of size than se and sme." in note


def test_volumes_are_left_out_where_a_run_has_none(volumes):
    run = volumes.run("sme")
    (run.folder / "volumes.csv").unlink()
    assert "sources_volumes" not in tables_of([source_section(volumes.results(sme=[run]))])


def test_there_is_nothing_to_compare_without_other_sources(volumes):
    assert source_section(volumes.results(se=[volumes.run("se", modes=("normal",))])) is None
    run = volumes.run("sme")
    (run.folder / "schema.json").unlink()
    assert source_section(volumes.results(sme=[run])) is None
