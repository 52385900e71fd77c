import os
from pathlib import Path

import numpy as np
import pytest
import torch

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import PredictionSamples
from metaseg_monai.evaluation.samples import read_samples


@pytest.fixture
def sampled(tmp_path, measured):
    """Evaluate cases (group, domain, foreground pixels) in two modes, one case a batch."""

    def sample(cases, per_domain, shape=(4, 4)):
        pairs = []
        for mode in ("normal", "zeros"):
            for number, (group, domain, pixels) in enumerate(cases):
                label = torch.zeros(1, 1, *shape)
                label.view(-1)[:pixels] = 1
                names = {"case": f"c{number}", "group": group, "domain": domain, "mode": mode}
                pred = torch.cat([1 - label, label], dim=1).roll(int(mode != "normal"), -1)
                output = {"image": torch.rand(1, 1, *shape), "label": label, "pred": pred}
                pairs.append(({key: [value] for key, value in names.items()}, output))
        return read_samples(measured(PredictionSamples(per_domain), tmp_path / "s.npz", pairs))

    return sample


def test_one_case_of_each_patient_with_the_most_to_see(sampled):
    cases = [("a", "x", 1), ("a", "x", 5), ("a", "x", 2), ("b", "x", 0), ("c", "x", 9)]
    samples = sampled(cases, per_domain=2)
    assert [sample.case for sample in samples] == ["c1", "c3"]
    assert all(list(sample.preds) == ["normal", "zeros"] for sample in samples)
    np.testing.assert_array_equal(samples[0].preds["normal"], samples[0].label)
    np.testing.assert_array_equal(samples[0].preds["zeros"], np.roll(samples[0].label, 1, -1))
    assert 0 <= samples[0].image.min() <= samples[0].image.max() <= 1


def test_an_image_of_several_channels_is_drawn_as_their_mean(tmp_path, measured):
    image = torch.zeros(1, 2, 4, 4)
    image[0, 0, 0], image[0, 1, 0, 0] = 1, 1
    label = torch.ones(1, 1, 4, 4)
    names = {"case": "c", "group": "g", "domain": "x", "mode": "normal"}
    output = {"image": image, "label": label, "pred": torch.cat([1 - label, label], dim=1)}
    pair = ({key: [value] for key, value in names.items()}, output)
    (sample,) = read_samples(measured(PredictionSamples(1), tmp_path / "s.npz", [pair]))
    assert sample.channels == 2
    np.testing.assert_allclose(
        sample.image[0], [1, 0.5, 0.5, 0.5], atol=0.05
    )  # to_unit cuts the ends


def test_every_domain_has_its_cases(sampled):
    cases = [("a", "x", 1), ("b", "x", 2), ("a", "y", 3)]
    assert [one.domain for one in sampled(cases, per_domain=1)] == ["x", "y"]


def test_of_volumes_three_planes_through_the_label_are_kept(tmp_path, measured):
    label = torch.zeros(1, 1, 6, 8, 4)
    label[0, 0, 1:4, 5:8, 3] = 1  # its middle: row 2, column 6, plane 3
    image = torch.arange(label.numel()).reshape(label.shape).float()
    names = {"case": "c", "group": "g", "domain": "x", "mode": "normal"}
    names["spacing_mm"] = torch.tensor([2.0, 1.0, 1.0])
    output = {"image": image, "label": label, "pred": torch.cat([1 - label, label], dim=1)}
    pair = ({key: [value] for key, value in names.items()}, output)
    (sample,) = read_samples(measured(PredictionSamples(1), tmp_path / "s.npz", [pair]))
    assert sample.label.shape == sample.image.shape == (8, 8 + 8 + 6)
    axial, coronal, sagittal = (
        sample.label[:, at] for at in (slice(8), slice(8, 16), slice(16, 22))
    )
    np.testing.assert_array_equal(axial[:6], label[0, 0, :, :, 3])
    assert not axial[6:].any()
    np.testing.assert_array_equal(coronal, np.repeat(label[0, 0, 2].numpy().T, 2, axis=0))
    np.testing.assert_array_equal(sagittal, np.repeat(label[0, 0, :, 6].numpy().T, 2, axis=0))
    np.testing.assert_array_equal(sample.preds["normal"], sample.label)


def test_a_volume_without_a_label_is_shown_in_its_middle(sampled):
    (sample,) = sampled([("a", "x", 0)], per_domain=1, shape=(4, 5, 3))
    assert sample.image.shape == sample.preds["zeros"].shape == (4, 5 + 5 + 4)
    (plane,) = sampled([("a", "x", 3)], per_domain=1, shape=(4, 5, 1))
    assert plane.image.shape == (4, 5)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_code_in_samples_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "samples.npz", index=np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="allow_pickle=False"):
        read_samples(tmp_path / "samples.npz")
    assert not Path("harmed").exists()
