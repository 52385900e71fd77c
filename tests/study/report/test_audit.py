import pandas as pd
import pytest

from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.study.report.audit import audit_section
from metaseg_monai.study.report.document import tables_of


def write_field(run, **changes):
    settings = {
        "name": "size",
        "unit": "mm",
        "range": (5, 250),
        "provenance": "clinical prior",
        "availability": "pre-operative",
        **changes,
    }
    MetadataSchema([Continuous(**settings)]).save(run.folder / "schema.json")


def unrelated(run):
    cases = pd.read_csv(run.folder / "cases.csv")
    given = {"p0": 50, "p1": 70, "p2": 20, "p3": 90, "p4": 40}
    cases["size"] = cases["group"].map(given).fillna(50)
    cases.to_csv(run.folder / "cases.csv", index=False)


def test_a_size_read_off_the_label_is_warned_of(volumes):
    section = audit_section(volumes.results(sme=[volumes.run("sme")]))
    assert section.parts[0].startswith("Warning: size is partly the answer")
    assert "its provenance is the label and it follows the size of class 2" in section.parts[0]
    table = tables_of([section])["leakage"].values
    assert table.loc["size, class 2", "Spearman"] == 1
    assert table.loc["size, class 2", "R2"] == pytest.approx(1, abs=1e-4)
    assert table.loc["size, class 2", "groups"] == 5
    assert "size: Of the largest lesion." in section.parts


def test_r2_is_of_the_logarithms_where_the_field_is_encoded_so(volumes):
    run = volumes.run("sme")
    cases = pd.read_csv(run.folder / "cases.csv")
    cases.assign(size=cases["size"] ** 3).to_csv(run.folder / "cases.csv", index=False)
    share = {}
    for scale in ("linear", "log"):
        write_field(run, scale=scale)
        section = audit_section(volumes.results(sme=[run]))
        share[scale] = tables_of([section])["leakage"].values.loc["size, class 2", "R2"]
    assert share["log"] == pytest.approx(1, abs=1e-4)
    assert share["linear"] < 0.95


def test_a_close_value_of_another_provenance_is_warned_of(volumes):
    run = volumes.run("sme")
    write_field(run)
    warning = audit_section(volumes.results(sme=[run])).parts[0]
    assert "partly the answer: it follows the size of class 2 (Spearman 1.00)" in warning


def test_an_unrelated_prior_is_not_warned_of(volumes):
    run = volumes.run("sme")
    write_field(run)
    unrelated(run)
    section = audit_section(volumes.results(sme=[run]))
    assert not any("Warning" in part for part in section.parts if isinstance(part, str))
    assert abs(tables_of([section])["leakage"].values.loc["size, class 2", "Spearman"]) < 0.7


def test_what_is_known_only_after_the_operation_is_said_to_be_refused(volumes):
    run = volumes.run("sme")
    write_field(run, availability="post-operative")
    table = tables_of([audit_section(volumes.results(sme=[run]))])["metadata_fields"].values
    assert table.loc["size", "at inference"] == "refused unless forced"
    assert table.loc["size", "range"] == "5 to 250"


def test_without_cases_only_the_fields_are_told(volumes):
    run = volumes.run("sme")
    (run.folder / "cases.csv").unlink()
    assert set(tables_of([audit_section(volumes.results(sme=[run]))])) == {"metadata_fields"}
    (run.folder / "schema.json").unlink()
    assert audit_section(volumes.results(sme=[run])) is None
