import math

import pytest

from metaseg_monai.study.report.document import tables_of
from metaseg_monai.study.report.sources import source_section


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


def test_volumes_are_left_out_where_a_run_has_none(volumes):
    run = volumes.run("sme")
    (run.folder / "volumes.csv").unlink()
    assert "sources_volumes" not in tables_of([source_section(volumes.results(sme=[run]))])


def test_there_is_nothing_to_compare_without_other_sources(volumes):
    assert source_section(volumes.results(se=[volumes.run("se", modes=("normal",))])) is None
    run = volumes.run("sme")
    (run.folder / "schema.json").unlink()
    assert source_section(volumes.results(sme=[run])) is None
