"""Every study that the repository holds can be planned."""

from pathlib import Path

import pytest

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
