import numpy as np
import torch
from ignite.engine import Engine

from metaseg_monai.evaluation import PredictionSamples
from metaseg_monai.evaluation.samples import read_samples


def run(tmp_path, cases, per_domain):
    """Evaluate cases (group, domain, foreground pixels) in two modes, one case a batch."""
    batches, outputs = [], []
    for mode in ("normal", "zeros"):
        for number, (group, domain, pixels) in enumerate(cases):
            label = torch.zeros(1, 1, 4, 4)
            label.view(-1)[:pixels] = 1
            names = {"case": f"c{number}", "group": group, "domain": domain, "mode": mode}
            batches.append({key: [value] for key, value in names.items()})
            pred = torch.cat([1 - label, label], dim=1)
            outputs.append({"image": torch.rand(1, 1, 4, 4), "label": label, "pred": pred})
    given = iter(outputs)
    engine = Engine(lambda engine, batch: next(given))
    PredictionSamples(tmp_path / "samples.npz", per_domain).attach(engine)
    engine.run(batches)
    return read_samples(tmp_path / "samples.npz")


def test_one_case_of_each_patient_with_the_most_to_see(tmp_path):
    cases = [("a", "x", 1), ("a", "x", 5), ("a", "x", 2), ("b", "x", 0), ("c", "x", 9)]
    samples = run(tmp_path, cases, per_domain=2)
    assert [sample.case for sample in samples] == ["c1", "c3"]
    assert all(list(sample.preds) == ["normal", "zeros"] for sample in samples)
    np.testing.assert_array_equal(samples[0].preds["zeros"], samples[0].label)


def test_every_domain_has_its_cases(tmp_path):
    cases = [("a", "x", 1), ("b", "x", 2), ("a", "y", 3)]
    assert [one.domain for one in run(tmp_path, cases, per_domain=1)] == ["x", "y"]
