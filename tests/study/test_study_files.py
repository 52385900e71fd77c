"""Every study that the repository holds can be planned."""

import re
from pathlib import Path

import pytest

from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.reporting.published import find_reference
from metaseg_monai.study import Study
from metaseg_monai.study.matrix import expand

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("bundles/*/studies/*.json"), *ROOT.glob("docs/examples/*/study*.json")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_study_can_be_planned(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = Study.load(file)
    runs = expand(study)
    assert {run.condition for run in runs} == set(study.conditions)
    assert len({run.folder for run in runs}) == len(runs)
    assert study.protocol.sample_size
    for name, renamed in study.references.items():
        reference = find_reference(name, ROOT / "docs" / "references.json")
        assert set(renamed) <= {*reference.columns, *reference.rows}


def test_studies_of_bundles_name_their_files_from_the_bundle_not_from_the_working_folder():
    for file in ROOT.glob("bundles/*/studies/*.json"):
        assert '"bundles/' not in file.read_text(encoding="utf-8"), file


def test_no_code_of_the_magnifications_knows_unknown():
    study = Study.load(ROOT / "bundles/magnification_nuclei_segmentation/studies/encodings.json")
    for run in expand(study):  # whose metadata a training would drop, unlike the others'
        expression = run.settings["schema_file"]
        name = re.search(r"/configs/(\w+\.json)", expression).group(1)
        schema = MetadataSchema.load(ROOT / "bundles" / study.bundle / "configs" / name)
        assert not schema.knows_unknown, run.condition
