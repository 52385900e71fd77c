import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import CaseCounts, PredictionSamples, count_pixels, read_counts
from metaseg_monai.evaluation.samples import read_samples


def test_counts_of_two_images_and_two_classes_by_hand():
    pred = torch.tensor([[[0, 1, 1, 2]], [[0, 0, 0, 0]]])
    label = torch.tensor([[[0, 1, 2, 2]], [[1, 0, 0, 0]]])
    assert count_pixels(pred, label, classes=3).tolist() == [
        [[1, 1, 0, 2], [1, 0, 1, 2]],
        [[0, 0, 1, 3], [0, 0, 0, 4]],
    ]


def test_counts_of_different_shapes_are_refused():
    with pytest.raises(DataError, match="differ"):
        count_pixels(torch.zeros(1, 2), torch.zeros(1, 3), classes=2)


def evaluated(*handlers, modes=("normal", "ones")):
    """Run an evaluator over two cases in each mode; the prediction is the label, shifted by one."""
    label = torch.zeros(2, 1, 4, 6)
    label[0, 0, 1:3, 1:3] = 1
    batches = []
    for mode in modes:
        pred = torch.nn.functional.one_hot(label[:, 0].long().roll(1, -1), 2).movedim(-1, 1)
        names = {"case": ["a", "b"], "group": ["g", "h"], "split": ["test"] * 2}
        names |= {"mode": [mode] * 2, "domain": ["x", "y"]}
        output = {"image": torch.rand(2, 1, 4, 6), "label": label, "pred": pred.float()}
        batches.append(SimpleNamespace(names=names, output=output))

    def step(engine, batch):
        engine.state.batch = batch.names
        return batch.output

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    engine.run(batches)


def test_the_file_holds_every_case_mode_and_class_once(tmp_path):
    evaluated(CaseCounts(tmp_path / "counts.csv", classes=2))
    counts = read_counts(tmp_path / "counts.csv")
    assert counts[["case", "mode"]].to_numpy().tolist() == [
        ["a", "normal"], ["b", "normal"], ["a", "ones"], ["b", "ones"],
    ]  # fmt: skip
    assert counts.loc[0, ["tp", "fp", "fn", "tn"]].tolist() == [2, 2, 2, 18]
    assert counts.loc[1, ["tp", "fp", "fn", "tn"]].tolist() == [0, 0, 0, 24]


def test_a_second_evaluation_starts_from_nothing(tmp_path):
    handler = CaseCounts(tmp_path / "counts.csv", classes=2)
    evaluated(handler)
    evaluated(handler)
    assert len(read_counts(tmp_path / "counts.csv")) == 4


def test_missing_or_foreign_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match="run the evaluation"):
        read_counts(tmp_path / "counts.csv")
    (tmp_path / "counts.csv").write_text("case,tp\na,1\n")
    with pytest.raises(DataError, match="lacks group"):
        read_counts(tmp_path / "counts.csv")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_code_in_samples_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "samples.npz", index=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_samples(tmp_path / "samples.npz")
    assert not Path("harmed").exists()


def test_samples_keep_the_first_case_of_each_domain_with_its_modes(tmp_path):
    evaluated(PredictionSamples(tmp_path / "samples.npz"))
    first, second = read_samples(tmp_path / "samples.npz")
    assert (first.case, first.domain, list(first.preds)) == ("a", "x", ["normal", "ones"])
    assert second.domain == "y"
    np.testing.assert_array_equal(first.preds["ones"], np.roll(first.label, 1, axis=-1))
    assert first.image.min() >= 0
    assert first.image.max() <= 1
