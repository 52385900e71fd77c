"""Which items of CLAIM and TRIPOD+AI are answered: by a file that is there, and no others."""

import json

import pytest

from metaseg_monai.reporting.page import tables_of
from metaseg_monai.reporting.published import (
    AUTHOR,
    CLAIM,
    TRIPOD,
    checklist_section,
    evidence_of,
)
from metaseg_monai.reporting.runs import read_results


def tables(folder):
    section = checklist_section(read_results(folder), folder)
    return {name: one.values for name, one in tables_of([section]).items()}


def test_every_item_of_both_guidelines_stands_there_once():
    assert list(CLAIM) == [str(number) for number in range(1, 45)]
    numbers = {int(item.rstrip("abcdefgh")) for item in TRIPOD}
    assert numbers == set(range(1, 28))
    assert len(TRIPOD) == 52
    asked = {key for items in (CLAIM, TRIPOD) for _, key in items.values() if key}
    assert asked == asked & KEYS


KEYS = {
    *("aims", "preprocessing", "left_out", "missing", "classes", "splits", "disjoint"),
    *("sample_size", "network", "software", "training", "best", "ensemble", "scores", "tests"),
    *("modes", "explained", "flow", "performance", "protocol"),
    *("fields", "domains", "weights"),
}


def test_an_item_is_answered_by_a_file_that_is_there_and_else_left_to_the_author(studied):
    folder = studied({"se": (5, 5, 5), "sme": (8, 9, 9)})
    shown = tables(folder)["claim"]
    for file in set(shown["file"]) - {AUTHOR}:
        assert (folder / file).is_file(), file
    assert shown.loc["4"].tolist()[1:] == ["study.json", "Does metadata help?"]
    assert shown.loc["21", "what stands there"] == "8 groups were planned"
    assert "torch 0" in shown.loc["23", "what stands there"]
    assert shown.loc["30", "file"] == "sme/seed0/counts.csv"  # se has no other mode
    assert shown.loc["31", "file"] == AUTHOR
    for author in ("7", "8", "15", "16", "19", "32", "33", "36", "40", "44"):
        assert shown.loc[author].tolist()[1:] == [AUTHOR, ""]
    # no model.json, cases.csv or schema.json was written by these runs
    for absent in ("9", "12", "20", "22", "26"):
        assert shown.loc[absent, "file"] == AUTHOR


def test_what_a_file_does_not_say_is_not_answered(studied):
    folder = studied({"se": (5, 5, 5), "sme": (8, 9, 9)}, sample_size=None)
    first = folder / "se" / "seed0"
    assert tables(folder)["tripod_ai"].loc["10", "file"] == AUTHOR
    facts = {
        "network": {"_target_": "x.Unet3"},
        "preprocessing": [1, 2],
        "weights_sha256": "ab" * 32,
    }
    (first / "model.json").write_text(json.dumps(facts))
    shown = tables(folder)["claim"]
    assert shown.loc["22", "file"] == shown.loc["9", "file"] == "se/seed0/model.json"
    assert shown.loc["26", "file"] == AUTHOR  # its best epoch is not among them


def test_what_one_run_of_several_says_is_told_as_such(studied):
    folder = studied({"se": (5, 5, 5), "sme": (8, 9, 9)})
    for seed, case in ((0, "p1"), (1, "p1"), (2, "p2")):
        file = folder / "sme" / f"seed{seed}" / "evaluation.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "left_out": {case: "cut"}}))
    model = folder / "se" / "seed0" / "model.json"
    model.write_text(json.dumps({"weights_sha256": "ab" * 32}))
    (model.parent / "model.pt").touch()
    history = json.loads((folder / "protocol.json").read_text())
    later = {**history[0], "at": "2031-02-03T04:05:06+00:00", "finished_runs": 4}
    (folder / "protocol.json").write_text(json.dumps([*history, later]))
    known = evidence_of(read_results(folder), folder)
    told = "sme/seed0/evaluation.json", "2 cases could not be read"  # not se's, which lacks none
    assert known["left_out"] == told
    assert known["weights"][1].endswith("preprocessing (first of 6 trainings)")
    first, change = known["protocol"][1].split("; ")
    assert first.startswith("fixed on ")
    assert change == "changed on 2031-02-03 when 4 runs had results"


@pytest.mark.parametrize("shared", [False, True])
def test_splits_are_disjoint_only_where_the_groups_are(volumes, shared):
    run = volumes.run("sme")
    if shared:  # a patient of the test is among the trained ones
        run.edit(lambda table: table.replace({"group": {"t0": "p0"}}))
    results = volumes.results(sme=[run])
    known = evidence_of(results, volumes.folder)
    assert ("disjoint" in known) is not shared
    assert known["splits"][1] == "test 10 cases of 5 groups and train 2 cases of " + ("2 groups")
    assert known["missing"] == ("sme/seed0/schema.json", "size: marked as unknown")
    assert "size (continuous in mm; label-derived)" in known["fields"][1]
    assert "missing" in known["modes"][1]
