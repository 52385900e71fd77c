import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.published import (
    beside,
    find_reference,
    load_references,
    published_section,
    verdict,
)
from metaseg_monai.study.design import Study

PATH = Path(__file__).resolve().parents[2] / "docs" / "references.json"
CONDITIONS = {"none", "se", "me", "sme", "sme-dummy", "film-ivadomed", "film-ivadomed-dummy"}


@pytest.fixture(scope="module")
def references():
    return load_references(PATH)


def write(folder, *changes):
    """A file with the first table of ours, once for each dictionary of changed fields."""
    table = json.loads(PATH.read_text(encoding="utf-8"))["tables"][0]
    path = folder / "references.json"
    path.write_text(json.dumps({"tables": [{**table, **change} for change in changes]}))
    return path


def test_every_table_of_the_texts_is_there(references):
    wanted = [f"paper-{number}" for number in (1, 2, 3)]
    wanted += [f"thesis-4.{number}" for number in range(1, 16)]
    present = [name for name in wanted for id in references if f"{id}-".startswith(f"{name}-")]
    assert list(dict.fromkeys(present)) == wanted


def test_every_number_is_a_share(references):
    for reference in references.values():
        if reference.kind != "findings":
            values = reference.frame().to_numpy(dtype=float)
            known = values[~pd.isna(values)]
            assert len(known) > 0
            assert ((known >= 0) & (known <= 1)).all(), reference.id


@pytest.mark.parametrize(
    ("id", "row", "column", "value"),
    [
        ("paper-1", "sme", "average", 0.863),
        ("paper-1", "experts", "MDCK", 0.830),
        ("paper-2", "sme", "combined", 0.854),
        ("paper-3-full", "sme", "anomalies", 0.836),
        ("paper-3-full", "sme", "nuclei", 0.850),
        ("paper-kits21", "me", "combined", 0.807),
        ("thesis-4.1", "expert-HeLa", "MDCK", 0.468),
        ("thesis-4.2-me", "MDCK", "inverse", 0.720),
        ("thesis-4.3-unet3", "me", "HeLa", 0.901),
        ("thesis-4.4", "me > se", "p", 0.00057),
        ("thesis-4.5", "none", "10x", 0.705),
        ("thesis-4.6", "40x", "fixed:10x", 0.155),
        ("thesis-4.8-share-2.5", "me", "40x", 0.735),
        ("thesis-4.9-8-lines", "sme", "7LINES", 0.853),
        ("thesis-4.10", "se", "crack", 0.877),
        ("thesis-4.12", "experts", "cross", 0.956),
        ("thesis-4.13", "disc", "zeros", 0.205),
        ("thesis-4.14", "se", "anomalies", 0.091),
        ("thesis-4.15-curtailed", "sme", "anomalies", 0.854),
        ("authors-retina", "sme-dummy", "combined", 0.8197),
    ],
)
def test_cells_are_as_printed(references, id, row, column, value):
    assert references[id].rows[row][column] == value


@pytest.mark.parametrize("id", ["paper-1", "paper-3-full", "paper-3-multilabel"])
def test_the_papers_average_is_the_unweighted_mean_of_its_domains(references, id):
    frame = references[id].frame()
    means = frame.drop(columns="average").mean(axis=1)
    known = frame["average"].notna()
    assert known.sum() >= 2
    assert (means - frame["average"])[known].abs().max() < 0.0011


@pytest.mark.parametrize("id", ["thesis-4.6", "thesis-4.11", "thesis-4.13"])
def test_a_domain_scores_with_its_own_label_as_in_mode_normal(references, id):
    frame = references[id].frame()
    domains = [row for row in frame.index if row != "combined"]
    assert [frame.loc[d, f"fixed:{d}"] for d in domains] == list(frame.loc[domains, "normal"])


@pytest.mark.parametrize(
    ("id", "given"),
    [
        ("thesis-4.6", {"10x": "20x", "20x": "40x", "40x": "10x"}),
        ("thesis-4.11", {"crack": "HeLa", "HepG2": "crack", "HeLa": "HepG2"}),
    ],
)
def test_shuffle_scores_as_the_label_that_it_gives(references, id, given):
    frame = references[id].frame()
    for domain, label in given.items():
        assert frame.loc[domain, "shuffle"] == frame.loc[domain, f"fixed:{label}"]


def test_a_blank_cell_is_no_number(references):
    frame = references["thesis-4.12"].frame()
    assert math.isnan(frame.loc["experts", "combined"])
    assert list(frame.columns)[:2] == ["combined", "triangle"]


def test_main_conditions_are_named_as_ours(references):
    assert set(references["paper-1"].rows) == {*CONDITIONS - {"none"}, "experts"}


@pytest.mark.parametrize(
    ("published", "low", "high", "expected"),
    [
        (0.002, 0.001, 0.01, "agrees"),
        (0.002, -0.001, 0.01, "cannot tell"),
        (0.002, 0.0, 0.01, "cannot tell"),
        (0.002, -0.01, -0.001, "disagrees"),
        (-0.002, -0.01, -0.001, "agrees"),
        (-0.002, 0.001, 0.01, "disagrees"),
        (0.0004, -0.02, 0.02, "agrees"),
        (0.0, -0.03, 0.01, "cannot tell"),
        (0.0, 0.021, 0.05, "disagrees"),
        (-0.0004, -0.05, -0.021, "disagrees"),
        (0.01, float("nan"), float("nan"), "cannot tell"),
    ],
)
def test_verdict(published, low, high, expected):
    assert verdict(published, low, high) == expected


def test_beside_joins_what_both_have(references):
    ours = pd.DataFrame(
        {"ring": [0.99, 0.98, 0.5], "combined": [0.97, 0.96, 0.5], "star": [1.0, 1.0, 1.0]},
        index=["sme", "me", "film"],
    )
    shown = beside(references["thesis-4.12"], ours)
    assert list(shown.values.index) == ["sme", "me"]
    assert shown.heads == [
        ("ring", "ours"),
        ("ring", "published"),
        ("combined", "ours"),
        ("combined", "published"),
    ]
    assert list(shown.values.loc["me"]) == [0.98, 0.958, 0.96, 0.968]
    assert shown.best == "high"
    assert "thesis, table 4.12" in shown.title


def test_beside_ranks_no_test_modes(references):
    ours = references["thesis-4.6"].frame() + 0.01
    assert beside(references["thesis-4.6"], ours).best is None


def test_beside_refuses_tables_that_share_nothing(references):
    ours = pd.DataFrame({"star": [1.0]}, index=["sme"])
    with pytest.raises(DataError, match=r"thesis-4.12 and our table share no cell.*ours are sme"):
        beside(references["thesis-4.12"], ours)


def test_an_unknown_id_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no published table 'thesis-9'.*paper-1, paper-2"):
        find_reference("thesis-9", PATH)
    assert find_reference("paper-2", PATH).source == "paper, table 2"


def test_refuses_a_missing_or_foreign_file(tmp_path):
    with pytest.raises(ConfigError, match=r"give the path of references\.json"):
        load_references(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not JSON of the form"):
        load_references(tmp_path / "list.json")


def test_matrices_and_findings_stand_beside_ours(tmp_path, results_of, made):
    path = write(
        tmp_path,
        {"id": "matrix", "kind": "modes", "condition": "me", "columns": ["normal", "fixed:A"],
         "rows": {"A": {"normal": 0.9, "fixed:A": 0.8}}},
        {"id": "words", "kind": "findings", "columns": ["finding", "outcome"],
         "rows": {"se": {"finding": "learns it", "outcome": "learned"}, "x": {"finding": "-"}}},
        {"id": "other", "kind": "modes", "condition": "film"},
    )  # fmt: skip
    named = {"matrix": {"A": "a"}, "words": {"se": "me, gone"}, "other": {}}
    protocol = {"comparisons": [], "learned": [0.2, 0.5]}
    study = Study(name="s", bundle="b", conditions=["me"], references=named, protocol=protocol)
    rows = [
        (f"{domain}{n}", "g", "test", mode, domain, 1, 4, 2, 2, 9)
        for domain in "ab"
        for n in range(2)
        for mode in ("normal", "fixed:line=a")
    ]
    counts = made(pd.DataFrame(rows, columns=COUNT_COLUMNS))
    matrix, words, other = published_section(results_of(study, me=[counts]), study, path).parts
    assert matrix.values.loc["A", ("fixed:A", "ours")] == pytest.approx(8 / 12)
    assert matrix.values.loc["A", ("fixed:A", "published")] == 0.8
    row = {"published": "learns it", "ours": "me: learned", "verdict": "agrees"}
    assert words.values.loc["se"].to_dict() == row
    assert other.startswith("other cannot be shown: it is a matrix of film, which was not tested")


def test_differences_that_are_printed_and_made_have_a_verdict(tmp_path, results_of, made):
    printed = {"se": {"combined": 0.8}, "me": {"combined": 0.9}, "sme": {}, "film": {"combined": 1}}
    path = write(tmp_path, {"id": "scores", "columns": ["combined"], "rows": printed})
    rows = {
        name: [(f"c{n}", f"g{n}", "test", "normal", "a", 1, hits, 2, 9 - hits, 9) for n in range(6)]
        for name, hits in (("se", 5), ("me", 7), ("sme", 7))
    }
    protocol = {"comparisons": [["me", "se"], ["film", "se"]]}
    named = {"conditions": [*rows, "film"], "references": ["scores"]}
    study = Study(name="s", bundle="b", protocol=protocol, **named)
    tested = {n: [made(pd.DataFrame(r, columns=COUNT_COLUMNS))] * 2 for n, r in rows.items()}
    _, table = published_section(results_of(study, **tested), study, path).parts
    assert table.values["published"].to_dict() == {"me - se": pytest.approx(0.1)}
    assert table.values.loc["me - se", "verdict"] == "agrees"
    begun = replace(results_of(study, **tested), short={"me": (1, 100)})
    _, table = published_section(begun, study, path).parts
    assert table.values.loc["me - se", "verdict"] == "cannot tell"


def test_another_condition_stands_for_a_published_row_of_a_name_that_we_have_too(
    tmp_path, results_of, made
):
    printed = {"se": {"combined": 0.8}, "sme": {"combined": 0.9}}
    path = write(tmp_path, {"id": "scores", "columns": ["combined"], "rows": printed})
    rows = {
        name: [(f"c{n}", f"g{n}", "test", "normal", "a", 1, hits, 2, 9 - hits, 9) for n in range(6)]
        for name, hits in (("se", 5), ("sme", 1), ("ppunet-sme", 7))
    }
    study = Study(
        name="s",
        bundle="b",
        conditions={"se": {}, "sme": {}, "ppunet-sme": {"variant": "sme"}},
        protocol={"comparisons": [["sme", "se"], ["ppunet-sme", "se"]]},
        references={"scores": {"sme": "ppunet-sme"}},
    )
    tested = {n: [made(pd.DataFrame(r, columns=COUNT_COLUMNS))] * 2 for n, r in rows.items()}
    scores, verdicts = published_section(results_of(study, **tested), study, path).parts
    assert list(scores.values.index) == ["se", "sme"]
    assert scores.values.loc["sme", ("combined", "ours")] == pytest.approx(7 / 9, abs=0.06)
    assert verdicts.values["published"].to_dict() == {"ppunet-sme - se": pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{}, {}], "the id paper-1 twice"),
        ([{"rows": []}], "table 0, rows: Input should be a valid dict"),
        ([{}, {"kind": "score"}], "table 1, kind: Input should be 'scores', 'modes'"),
    ],
)
def test_refuses_tables_that_are_not_of_the_form(tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told):
        load_references(write(tmp_path, *changes))
