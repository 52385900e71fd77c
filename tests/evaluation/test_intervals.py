"""What is calibrated of areas by hand-made cases, and what is refused."""

import math
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import PerCase
from metaseg_monai.evaluation.intervals import (
    AreaCoverage,
    CalibrateAreas,
    Calibrated,
    TellAreas,
    Values,
    chosen_field,
    read_coverage,
    tell_calibration,
)
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.training.weights import read_weights, write_weights

KNOWN = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
SCHEMA = MetadataSchema(
    [
        {"kind": "categorical", "name": "line", "values": ["HeLa", "MDCK"], **KNOWN},
        {"kind": "continuous", "name": "size", "unit": "um", "range": [0, 100], **KNOWN},
    ]
)


WINDOW = {"window": {"roi_size": [8, 8]}}


class Facts:
    """Weights that are known by their file."""

    def __init__(self, path):
        self.facts = {"window": {"roi_size": [8, 8], "sw_batch_size": 4}}
        self.path, self.recorded = path, read_weights(path)[1]
        self.knows_all_trained = True

    def trained_on(self):
        return None


@pytest.fixture
def weights(tmp_path):
    write_weights(tmp_path / "model.pt", torch.nn.Linear(2, 1), {"class_names": {"1": "nucleus"}})
    return Facts(tmp_path / "model.pt")


def images(count=50, modes=("normal",), seed=0):
    """Of HeLa masks are as large as the label, of MDCK up to twice as large."""
    rng, made = np.random.default_rng(seed), []
    for mode in modes:
        for number in range(count):
            line = ("HeLa", "MDCK")[number % 2]
            label = torch.zeros(20, 20)
            label[:10, :10] = 1
            seen = torch.zeros(20, 20)
            height = 10 if line == "HeLa" else int(rng.integers(10, 21))
            seen[:height, :10] = 1
            logits = torch.stack([torch.zeros(20, 20), 8 * seen - 4])
            logits[1, 5, :10] = -1.0  # a tenth of the label is found below 0.27 only
            item = {"case": f"{mode}{number}", "image": f"{number}.png", "mode": mode}
            item |= {"group": f"g{number}", "split": "calibration", "domain": "all"}
            item["metadata"] = {"line": line, "size": number}
            made.append((item, label, logits))
    return made


def run(handler, cases):
    names = ("case", "group", "split", "mode", "domain")

    class Loader(list):
        dataset = SimpleNamespace(data=[item for item, *_ in cases])

    batches = Loader(
        {
            **{name: [item[name] for item, *_ in part] for name in names},
            "label": torch.stack([label for _, label, _ in part])[:, None],
            "image": torch.zeros(len(part), 1, 20, 20),
            "logits": torch.stack([logits for *_, logits in part]),
        }
        for part in (cases[at : at + 8] for at in range(0, len(cases), 8))
    )

    def step(engine, data):
        engine.state.batch = data
        return {"pred": data["logits"]}

    engine = Engine(step)
    handler.attach(engine)
    engine.run(batches)
    return engine


def calibrated(weights, by="line", cases=None, **settings):
    field = None if by is None else SCHEMA.field(by)
    handler = CalibrateAreas(weights, 2, field, "calibration", **settings)
    run(handler, images() if cases is None else cases)
    return handler.chosen


def test_a_value_has_the_bound_of_its_own_cases(weights):
    chosen = calibrated(weights)
    assert read_weights(weights.path)[1]["conformal"] == chosen
    of = chosen["modes"]["normal"]
    # of HeLa a row of ten pixels of 100 is missed at 0.5: log(101 / 91), in every case
    assert of["HeLa"]["bounds"]["1"] == pytest.approx(math.log(101 / 91), abs=1e-6)
    assert math.log(1.5) < of["MDCK"]["bounds"]["1"] <= math.log(191 / 101) + 1e-6
    assert (of["HeLa"]["cases"], of["HeLa"]["pooled"], of["all"]["cases"]) == (25, False, 50)
    # at most a tenth is missed on average, the case to come counting as wholly missed
    assert of["HeLa"]["threshold"] == 0.26
    assert calibrated(weights, found=0.8)["modes"]["normal"]["HeLa"]["threshold"] > 0.9
    told = tell_calibration(chosen)
    assert "HeLa (25 cases in 25 groups): class 1: area / 1.11 to x 1.11; threshold 0.26" in told


def test_quantities_are_binned_and_few_are_pooled(weights):
    chosen = calibrated(weights, "size", images(80), bins=2)
    assert chosen["edges"] == [39.5]
    assert chosen["modes"]["normal"].keys() == {"all", "below 39.5", "39.5 or more"}
    few = calibrated(weights, "size", images(30), bins=2)["modes"]["normal"]
    assert few["below 14.5"]["pooled"]
    assert few["below 14.5"]["bounds"] == few["all"]["bounds"]
    eight = calibrated(weights, None, images(8))
    assert eight["modes"]["normal"]["all"]["bounds"] == {"1": None}  # nothing is promised
    assert "no bound, as groups are too few; no threshold promises that" in tell_calibration(eight)


def test_what_a_case_is_told_with(weights):
    fact = calibrated(weights, cases=images(50, modes=("normal", "missing")))
    known = Calibrated(fact, SCHEMA, WINDOW)
    own = known.of({"line": "MDCK", "size": 3})
    assert (own.value, own.cases) == ("MDCK", 25)
    low, high = own.of(1, 100, 400)
    assert low < 60 < 160 < high < 190.1
    assert known.of({"line": "MDCK"}).of(1, 390, 400)[1] == 400  # no larger than the image
    unknown = known.of({"line": "unknown", "size": ""})
    assert (unknown.value, unknown.cases) == ("all", 50)
    assert known.of({"line": "HeLa:0.5|MDCK:0.5"}).bounds == {}
    assert known.of({"line": "unknown", "size": 3}).bounds == {}  # none such calibrated it
    assert Values(SCHEMA.field("size"), [10.0]).of({"size": "5..20"}) is None
    absent = Calibrated(calibrated(weights, cases=images(50)[::2]), SCHEMA, WINDOW)
    assert absent.of({"line": "MDCK"}).value == "all"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"guidance": 0.5}, "guidance null, and now it is 0.5"),
        ({"clean_up": {"object_px": 9}}, "clean_up {}, and now"),
        ({"precision": "int8"}, "precision null"),
        ({"members": ["a.pt"]}, "members"),
        ({"threshold": 0.4}, "threshold 0.5"),
        ({"window": {"roi_size": [9, 9]}}, "window .*roi_size.* 8"),
    ],
)
def test_other_masks_are_refused(weights, settings, told):
    fact = calibrated(weights)
    with pytest.raises(ConfigError, match=f"{told}.*--conformal False"):
        Calibrated(fact, SCHEMA, {**WINDOW, **settings})
    plain = {"guidance": 1, "mirror": [], "precision": "bf16", "window": {"roi_size": [8, 8]}}
    Calibrated(fact, SCHEMA, plain)


@pytest.mark.parametrize("split", ["train", "test"])
def test_cases_that_were_seen_or_are_a_test_calibrate_nothing(weights, split):
    with pytest.raises(DataError, match=f"--split {split}"):
        CalibrateAreas(weights, 2, None, split)


def test_the_field_has_one_value_a_case_and_is_read():
    assert chosen_field(SCHEMA, None).name == "line"
    assert chosen_field(SCHEMA, "size").name == "size"
    assert chosen_field(SCHEMA, None, reads=False) is None
    with pytest.raises(ConfigError, match="reads no metadata"):
        chosen_field(SCHEMA, "line", reads=False)
    with pytest.raises(ConfigError, match="expected a field with one value"):
        chosen_field(SCHEMA, "stain")


def test_areas_are_noted_before_masks_are_written(weights):
    calibrated(weights)
    notes = {}
    record = SimpleNamespace(marks={}, note=lambda case, **told: notes.__setitem__(case, told))
    again = Facts(weights.path)
    handler = TellAreas(again, SCHEMA, 2, record)
    handler.begin()
    assert record.marks == {"conformal": again.recorded["conformal"]}
    run(handler, images(4))
    (of_class,) = notes["normal1"]["areas"]
    assert of_class["name"] == "nucleus"
    assert of_class["area_low"] < of_class["area"] < of_class["area_high"]
    assert (of_class["interval_of"], of_class["calibration_cases"]) == ("MDCK", 25)
    off = TellAreas(again, SCHEMA, 2, record, use=False)
    notes.clear()
    off.begin()
    run(off, images(4))
    assert notes == {}
    with pytest.raises(ConfigError, match="holds no intervals"):
        TellAreas(weights, SCHEMA, 2, record, use=True).begin()  # read before


def test_coverage_is_stored_case_by_case(weights, tmp_path):
    calibrated(weights, cases=images(50, modes=("normal", "missing")))
    measure = AreaCoverage(Facts(weights.path), SCHEMA, 2)
    cases = images(40, modes=("normal", "missing", "shuffle"), seed=1)
    run(PerCase(tmp_path / "conformal.csv", measure), cases)
    rows = read_coverage(tmp_path / "conformal.csv")
    assert rows["mode"].value_counts().to_dict() == {"normal": 40, "missing": 40}
    normal = rows[rows["mode"] == "normal"]
    assert set(normal["interval_of"]) == {"HeLa", "MDCK"}
    hela = normal[normal["value"] == "HeLa"]
    width, of_all = (hela[a] - hela[b] for a, b in (("high", "low"), ("high_all", "low_all")))
    assert (width < 0.5 * of_all).all()
    assert set(hela["found"]) == {1.0}
    other = AreaCoverage(Facts(weights.path), SCHEMA, 2, settings={"guidance": 2})
    run(PerCase(tmp_path / "conformal.csv", other), cases)
    assert not (tmp_path / "conformal.csv").exists()


def test_planes_of_a_volume_are_one_case(weights, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 3), np.int16), np.eye(4)), tmp_path / "v.nii.gz")
    cases = [
        ({**item, "image": str(tmp_path / "v.nii.gz"), "volume": "v", "plane": place}, *rest)
        for place, (item, *rest) in enumerate(images(3))
    ]
    notes = {}
    calibrated(weights)
    record = SimpleNamespace(marks={}, note=lambda case, **told: notes.__setitem__(case, told))
    handler = TellAreas(Facts(weights.path), SCHEMA, 2, record)
    handler.begin()
    run(handler, cases)
    assert notes.keys() == {"v"}
    assert notes["v"]["areas"][0]["area"] >= 3 * 90
    assert isinstance(pd.DataFrame(notes["v"]["areas"]).loc[0, "unit"], str)
