"""What scores rest on: the sources of metadata, and what it gives away of the answer."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from metaseg_monai.evaluation.per_case import BINS
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.reporting.audit import (
    audit_section,
    calibration_section,
    label_sizes,
    source_section,
)
from metaseg_monai.reporting.page import Details, tables_of


def field(run, **changes):
    """Let the run have another field; it is a prior and not read off the label."""
    when = {"provenance": "clinical prior", "availability": "pre-operative"}
    own = Continuous(**{"name": "size", "unit": "mm", "range": (5, 250), **when, **changes})
    MetadataSchema([own]).save(run.folder / "schema.json")
    return run


def sized(run, *sizes):
    """Give the five patients other sizes."""
    given = {f"p{place}": size for place, size in enumerate(sizes)}
    return run.edit(lambda cases: cases.assign(size=cases["group"].map(given).fillna(50)))


def audited(results):
    """What the section says, and its tables."""
    section = audit_section(results)
    said = [part for part in section.parts if isinstance(part, str)]
    return said, {name: table.values for name, table in tables_of([section]).items()}


UNRELATED = (50, 70, 20, 90, 40)


def test_a_size_read_off_the_label_is_warned_of(volumes):
    results = volumes.results(sme=[volumes.run("sme")])
    (said, tables), section = audited(results), audit_section(results)
    assert said[0].startswith("Warning: size is partly the answer")
    assert "its provenance is the label and it follows the size of class 2" in said[0]
    row = tables["leakage"].loc["size, class 2"]
    assert (row["Spearman"], row["groups"]) == (1, 5)
    assert row["R2"] == pytest.approx(1, abs=1e-4)
    described = next(part for part in section.parts if isinstance(part, Details)).parts
    assert described == ["size: Of the largest lesion."]


@pytest.mark.parametrize(
    ("sizes", "rank", "warned"),
    [
        ((20, 40, 55, 70, 90), 1.0, True),
        ((20, 55, 40, 70, 90), 0.9, True),
        ((40, 20, 55, 90, 70), 0.8, True),
        ((90, 70, 55, 40, 20), -1.0, True),
        (UNRELATED, 0.0, False),
    ],
)
def test_a_prior_that_follows_the_size_is_warned_of(volumes, sizes, rank, warned):
    run = sized(field(volumes.run("sme")), *sizes)
    said, tables = audited(volumes.results(sme=[run]))
    assert tables["leakage"].loc["size, class 2", "Spearman"] == pytest.approx(rank, abs=0.3)
    told = f"partly the answer: it follows the size of class 2 (Spearman {rank:.2f})"
    assert any(told in part for part in said) == warned
    assert any("Warning" in part for part in said) == warned


def test_r2_is_of_the_logarithms_where_the_field_is_encoded_so(volumes):
    run = volumes.run("sme").edit(lambda cases: cases.assign(size=cases["size"] ** 3))
    share = {}
    for scale in ("linear", "log"):
        _, tables = audited(volumes.results(sme=[field(run, scale=scale)]))
        share[scale] = tables["leakage"].loc["size, class 2", "R2"]
    assert share["log"] == pytest.approx(1, abs=1e-4)
    assert share["linear"] < 0.95


def test_the_closest_class_is_told_whichever_its_sign(volumes):
    run = field(volumes.run("sme"))
    other = run.counts.assign(**{"class": 1})
    place = other["group"].str[1].astype(int)
    # class 1 shrinks as the value grows, class 2 follows it only loosely
    other["tp"], other["fn"] = 5000 - 1000 * place, 0
    class_2 = run.counts.assign(tp=place.map({0: 300, 1: 100, 2: 500, 3: 200, 4: 400}), fn=0)
    run = replace(run, counts=pd.concat([other, class_2]))
    said, _ = audited(volumes.results(sme=[run]))
    assert "it follows the size of class 1 (Spearman -1.00)" in said[0]


def test_the_size_of_a_volume_is_that_of_all_data_that_hold_slices_of_it(volumes):
    first, second = volumes.run("sme", 0), volumes.run("sme", 1)
    larger = second.counts["group"] == "p0"  # other slices of the smallest patient
    second.counts.loc[larger, ["tp", "fn"]] *= 100
    results = volumes.results(sme={(0, 0): first, (1, 0): second})
    row = audited(results)[1]["leakage"].loc["size, class 2"]
    assert row["Spearman"] == pytest.approx(0)  # ranks 5 1 2 3 4 of 1 2 3 4 5


def test_whole_volumes_have_the_diameter_of_a_ball(volumes):
    section = audit_section(volumes.results(sme=[volumes.whole("sme")]))
    table = tables_of([section])["leakage"]
    assert table.note.startswith(
        "Size of the label: the volume of the label as the diameter of a ball of that volume, in mm"
    )
    sizes, _ = label_sizes(volumes.results(sme=[volumes.whole("me")]), ["sme"])
    assert sizes[2].tolist() == pytest.approx([20, 40, 55, 70, 90], rel=1e-3)
    assert table.values.loc["size, class 2", "volumes"] == 5
    slices = tables_of([audit_section(volumes.results(se=[volumes.run("se")]))])["leakage"]
    assert "as the diameter of a disc of that area, in mm (images without" in slices.note


def test_what_is_known_only_after_the_operation_is_said_to_be_refused(volumes):
    run = field(volumes.run("sme"), availability="post-operative")
    row = audited(volumes.results(sme=[run]))[1]["metadata_fields"].loc["size"]
    assert (row["at inference"], row["range"]) == ("refused unless forced", "5 to 250")


def test_each_set_of_values_is_audited_once_whatever_the_order(volumes):
    runs = {n: volumes.run(n) for n in ("me-unrelated", "se", "sme")}
    sized(runs["me-unrelated"], *UNRELATED)
    runs = {name.replace("-", "_"): [run] for name, run in runs.items()}
    for order in (runs, dict(reversed(runs.items()))):
        told, tables = audited(volumes.results(**order))
        used = "se and sme" if order is runs else "sme and se"
        assert tables["leakage"]["Spearman"].to_dict() == {
            f"size ({used}), class 2": 1,
            "size (me-unrelated), class 2": pytest.approx(0, abs=0.7),
        }
        assert [part for part in told if part.startswith("Warning")] == told[:1]
        assert told[0].startswith(f"Warning: size ({used}) is partly the answer")
        assert told[1] == f"me-unrelated was given other values of size than {used}."


def test_who_has_no_such_field_is_named(volumes):
    other = field(volumes.run("other"), name="age").edit(lambda one: one.drop(columns="size"))
    said, tables = audited(volumes.results(other=[other], sme=[volumes.run("sme")]))
    assert "other has no field size." in said
    assert list(tables["leakage"].index) == ["size, class 2"]


def test_equal_names_in_other_data_are_other_volumes(volumes):
    first, second = (volumes.run("sme", seed) for seed in range(2))
    second.edit(lambda cases: cases.assign(size=2 * cases["size"]))  # all are larger
    second.counts[["tp", "fp", "fn"]] *= 4
    results = volumes.results(several_data=True, sme={(0, 0): first, (1, 0): second})
    row = audited(results)[1]["leakage"].loc["size, class 2"]
    assert (row["volumes"], row["groups"]) == (10, 5)
    assert row["R2"] == pytest.approx(1, abs=1e-3)  # were they mixed, sizes would not fit labels


def test_without_cases_only_the_fields_are_told(volumes):
    run = volumes.run("sme")
    (run.folder / "cases.csv").unlink()
    assert set(audited(volumes.results(sme=[run]))[1]) == {"metadata_fields"}
    (run.folder / "schema.json").unlink()
    assert audit_section(volumes.results(sme=[run])) is None


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
    (run.folder / "volumes.csv").unlink()
    assert "sources_volumes" not in tables_of([source_section(volumes.results(sme=[run]))])


def test_it_is_said_who_reads_no_metadata_and_who_was_given_other_values(volumes):
    other = volumes.run("me-unrelated", modes=("normal", "missing")).edit(size=33)
    se = volumes.run("se", modes=("normal",))
    results = volumes.results(se=[se], sme=[volumes.run("sme")], me_unrelated=[other])
    note = tables_of([source_section(results)])["sources_class2"].note
    assert note.startswith("se reads no metadata and has one score.")
    assert "me-unrelated was given other values of size than se and sme." in note


def test_there_is_nothing_to_compare_without_other_sources(volumes):
    assert source_section(volumes.results(se=[volumes.run("se", modes=("normal",))])) is None
    run = volumes.run("sme")
    (run.folder / "schema.json").unlink()
    assert source_section(volumes.results(sme=[run])) is None


def test_calibration_is_of_all_seeds_and_of_each_domain(volumes):
    runs = [volumes.run("sme", seed) for seed in range(2)]
    for run, right in zip(runs, (7, 9), strict=True):
        rows = [("a", "g", "test", "normal", domain, 1, *bin_) for domain, *bin_ in (
            ("x", 9, 10, 9.5, right, 0.0), ("x", 0, 90, 0.9, 0, 0.0), ("y", 8, 10, 8.0, 8, 0.0)
        )]  # fmt: skip
        table = pd.DataFrame(rows, columns=list(BINS.columns))
        table.to_csv(run.folder / "calibration.csv", index=False)
    tables = tables_of([calibration_section(volumes.results(sme=runs))])
    row = tables["calibration"].values.loc["sme"]
    # of 20 pixels 16 are right at 0.95, of 180 none at 0.01, of 20 16 at 0.8
    assert row["ECE"] == pytest.approx((20 * 0.15 + 180 * 0.01) / 220)
    assert row["ECE without sure background"] == pytest.approx(20 * 0.15 / 40)
    domains = tables["calibration_domains"].values.loc["sme"]
    assert domains.to_dict() == pytest.approx({"x": 0.15, "y": 0.0})


def test_nothing_is_said_of_a_rank_among_four_patients(volumes):
    run = sized(field(volumes.run("sme")), 20, 40, 55, 70, "")
    said, tables = audited(volumes.results(sme=[run]))
    assert "leakage" not in tables
    assert said[-1] == "Too few groups have a label and a value to tell anything of size."
    assert not any("it follows" in one for one in said)


def named(run, *names, provenance="acquisition"):
    """Let the run have a field of names, and give the five patients theirs."""
    own = Categorical(
        name="size", values=("a", "b"), provenance=provenance, availability="acquisition",
        missing="unknown",
    )  # fmt: skip
    MetadataSchema([own]).save(run.folder / "schema.json")
    given = {f"p{place}": name for place, name in enumerate(names)}
    return run.edit(lambda cases: cases.assign(size=cases["group"].map(given).fillna("")))


@pytest.mark.parametrize(("names", "warned"), [("aabbb", True), ("ababa", False)])
def test_a_category_that_follows_the_size_is_warned_of(volumes, names, warned):
    said, tables = audited(volumes.results(sme=[named(volumes.run("sme"), *names)]))
    row = tables["leakage_names"].loc["size, class 2"]
    assert (row["values"], row["groups"]) == (2, 5)
    assert (row["share"] > 0.6) == warned
    told = f"it follows the size of class 2 ({row['share']:.0%} of the variance of its ranks)"
    assert any(told in part for part in said) == warned
    assert "leakage" not in tables


def test_categories_of_few_patients_or_of_none_are_not_told_of(volumes):
    said, tables = audited(volumes.results(sme=[named(volumes.run("sme"), "a", "a", "b", "b", "")]))
    assert "leakage_names" not in tables
    assert said[-1] == "Too few groups have a label and a value to tell anything of size."
    said, tables = audited(volumes.results(me=[named(volumes.run("me"), *"ccccc")]))
    assert "leakage_names" not in tables
