import json
from dataclasses import replace

import pandas as pd

from metaseg_monai.reporting.runs import (
    Replicate,
    cases_of,
    class_names,
    given_values,
    other_values,
    pixel_sizes,
    reads_metadata,
)
from metaseg_monai.study.design import Protocol, Study


def study_of(bundle, conditions):
    return Study(
        name="a", question="", bundle=str(bundle), conditions=conditions, seeds=[0],
        protocol=Protocol(comparisons=[]),
    )  # fmt: skip


def give(run, **columns):
    cases = pd.read_csv(run.folder / "cases.csv", dtype=str).assign(**columns)
    cases.to_csv(run.folder / "cases.csv", index=False)
    return run


def test_classes_are_named_as_the_bundle_names_them(volumes, tmp_path):
    run = volumes.run("se")
    results = volumes.results(se=[run])
    assert class_names(results) == {}
    (run.folder / "classes.json").write_text('{"0": "background", "1": "liver"}')
    assert class_names(results) == {1: "liver"}  # of a single run, without a study
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    (configs / "train.json").write_text("{}")
    named = replace(results, study=study_of(configs.parent, {"se": {}}))
    assert class_names(named) == {}
    channels = {"0": "background", "1": "kidney", "2": "tumour"}
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": channels}}}}
    (configs / "metadata.json").write_text(json.dumps(metadata))
    assert class_names(named) == {1: "kidney", 2: "tumour"}
    (configs / "metadata.json").write_text('{"network_data_format": []}')
    assert class_names(named) == {}
    assert class_names(replace(results, study=study_of(tmp_path / "gone", {"se": {}}))) == {}


def test_cases_of_several_data_are_named_as_in_the_results(volumes):
    run = volumes.run("sme")
    run.counts["case"] = "data7/" + run.counts["case"]
    first = cases_of(run, Replicate(7, 0)).iloc[0]
    assert (first["case"], first["group"], first["volume"]) == ("data7/p0_0", "p0", "data7/p0")


def test_a_case_that_is_a_volume_is_told_by_its_planes(volumes):
    run = volumes.whole("sme")
    cases = cases_of(run, Replicate(0, 0))
    assert cases["volume"].tolist() == cases["case"].tolist()  # as in the scores of volumes
    sizes = pixel_sizes(cases, run.counts)
    assert (sizes.dims, set(sizes.of_case)) == (3, {0.75})
    slices = volumes.run("se")
    sizes = pixel_sizes(cases_of(slices, Replicate(0, 0)), slices.counts)
    assert (sizes.dims, set(sizes.of_case)) == (2, {0.25})
    images = cases.assign(spacing_z_mm=float("nan"))  # single images: planes have no distance
    assert pixel_sizes(images, run.counts).dims == 2
    images.loc[0, "spacing_z_mm"] = 3.0
    assert pixel_sizes(images, run.counts) is None
    assert pixel_sizes(None, run.counts) is None


def test_values_are_those_of_most_conditions_whatever_the_order(volumes):
    runs = {
        "me_unrelated": [give(volumes.run("me-unrelated"), size="33")],
        "se": [volumes.run("se")],
        "sme": [give(volumes.run("sme"))],
        "unknown": [give(volumes.run("unknown"), size="")],
        "elsewhere": [give(volumes.run("elsewhere"))],
    }
    cases = pd.read_csv(runs["elsewhere"][0].folder / "cases.csv")
    cases.drop(columns="size").to_csv(runs["elsewhere"][0].folder / "cases.csv", index=False)
    sets = given_values(volumes.results(**runs), "size")
    assert [one.conditions for one in sets] == [["se", "sme"], ["me-unrelated"], ["unknown"]]
    told = other_values(sets[:2], "size")
    assert told == "me-unrelated was given other values of size than se and sme."
    assert set(sets[1].cases["size"]) == {"33"}


def test_who_reads_metadata(volumes):
    runs = {name: [volumes.run(name, modes=("normal",))] for name in ("se", "me", "mine")}
    runs["other"] = [volumes.run("other", modes=("normal", "missing"))]
    results = volumes.results(**runs)
    reading = {name: reads_metadata(results, name) for name in results.conditions}
    assert reading == {"se": False, "me": True, "mine": False, "other": True}
    planned = study_of("b", {"mine": {"variant": "film"}})
    assert reads_metadata(replace(results, study=planned), "mine")
