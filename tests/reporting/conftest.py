"""Results of runs that never were: any counts, and runs on volumes with a continuous field."""

import io
import json
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metaseg_monai.evaluation.volume_table import VOLUMES
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.figures import curves, predictions, ranking, values
from metaseg_monai.reporting.runs import Finished, Results
from metaseg_monai.study import Study
from metaseg_monai.study.matrix import expand
from metaseg_monai.study.record import fix

SIZES = {"p0": 20.0, "p1": 40.0, "p2": 55.0, "p3": 70.0, "p4": 90.0}
FIELD = Continuous(
    name="size",
    unit="mm",
    range=(5, 250),
    scale="log",
    missing="unknown",
    provenance="label-derived",
    availability="pre-operative",
    description="Of the largest lesion.",
)
SWEEP = ("fixed:size=10", "fixed:size=40", "fixed:size=160")
SOURCES = ("normal", "missing", "predicted", "perturb:0.5", "shuffle")
REGIONS = ("masses", "tumour")


@dataclass
class Made:
    """Counts of one training, and the folders of its runs: by domain for experts, else one."""

    counts: pd.DataFrame
    folder: Path | dict[str, Path] = Path("none")

    def edit(self, change=lambda table: table, name="cases.csv", **columns):
        """Change a table of the run on disk; return the run."""
        path = self.folder / name
        change(pd.read_csv(path)).assign(**columns).to_csv(path, index=False)
        return self

    def silence(self, *cases):
        """Let nothing be predicted in some cases; return the run."""
        silent = self.counts["case"].isin(cases)
        self.counts.loc[silent, "fn"] += self.counts.loc[silent, "tp"]
        self.counts.loc[silent, ["tp", "fp"]] = 0
        return self


def join(study=None, several_data=False, **conditions):
    """Results of lists of trainings, or of trainings by data seed and seed; me_dummy: me-dummy."""
    counts, runs = [], []
    for name, trainings in conditions.items():
        name = name.replace("_", "-")
        if not isinstance(trainings, dict):
            trainings = {(0, seed): one for seed, one in enumerate(trainings)}
        for (data, seed), one in trainings.items():
            table = one.counts.assign(condition=name, data_seed=data, seed=seed)
            if several_data:
                table["case"] = f"data{data}/" + table["case"]
            counts.append(table)
            folders = one.folder if isinstance(one.folder, dict) else {"": one.folder}
            runs += [Finished(name, data, seed, *place) for place in folders.items()]
    return Results(pd.concat(counts, ignore_index=True), runs, {}, study, several_data)


@pytest.fixture
def results_of():
    """Joins trainings to results, see `join`."""
    return join


@pytest.fixture
def made():
    """A training that never was, see `Made`."""
    return Made


class Volumes:
    """Writes runs of five patients with two slices each, whose label has about the size told."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, condition, seed=0, follows=0.0, modes=SOURCES + SWEEP, dice=0.8, gain=0.0):
        """One run; its predicted area is the size given to the power of `follows`."""
        folder = self.folder / condition / f"seed{seed}"
        folder.mkdir(parents=True)
        counts, cases = [], []
        for (group, size), plane in product(SIZES.items(), range(2)):
            case = f"{group}_{plane}"
            label = int(size**2 / (1 + plane))
            cases.append((case, group, "test", group, plane, 3.0, 0.5, 0.5, size))
            for mode in modes:
                given = float(mode.partition("=")[2]) if "=" in mode else size
                pred = int(label * (given / size) ** follows)
                tp = min(label, pred) * (9 if mode == "normal" else 8) // 10
                row = (case, group, "test", mode, "all", 2, tp, pred - tp, label - tp, 10**5)
                counts.append(row)
        cases += [("t0", "t0", "train", "t0", 0, 3.0, 0.5, 0.5, 15.0)]
        cases += [("t1", "t1", "train", "t1", 0, 3.0, 0.5, 0.5, 80.0)]
        spacing = ["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]
        names = ["case", "group", "split", "volume", "plane", *spacing, "size"]
        pd.DataFrame(counts, columns=COUNT_COLUMNS).to_csv(folder / "counts.csv", index=False)
        pd.DataFrame(cases, columns=names).to_csv(folder / "cases.csv", index=False)
        MetadataSchema([FIELD]).save(folder / "schema.json")
        rows = []
        for number, group in enumerate(SIZES):
            for mode, region in product([m for m in modes if m not in SWEEP], REGIONS):
                score = dice + 0.01 * number + gain - (0.3 if mode == "missing" else 0)
                rows.append(
                    (group, group, "test", mode, region, 1, 40, score, score, 2.0 + number,
                     10000.0, 10000.0 * score, 500.0, 2, 1 if number else 2, 1)
                )  # fmt: skip
        pd.DataFrame(rows, columns=list(VOLUMES.columns)).to_csv(
            folder / "volumes.csv", index=False
        )
        return Made(pd.DataFrame(counts, columns=COUNT_COLUMNS), folder)

    def whole(self, condition, **settings):
        """A run of a 3D network: each patient one case, a ball of about the size told, in ml."""
        run = self.run(condition, **settings)
        first = run.counts[run.counts["case"].str.endswith("_0")]
        size = first["group"].map(SIZES)
        label = (math.pi / 6 * size**3 / 0.75).astype(int)  # voxels of 3 x 0.5 x 0.5 mm
        share = (first["tp"] + first["fp"]) / (first["tp"] + first["fn"])
        tp, pred = (0.9 * label * share.clip(upper=1)).astype(int), (label * share).astype(int)
        counts = first.assign(case=first["group"], tp=tp, fp=pred - tp, fn=label - tp)
        cases = pd.read_csv(run.folder / "cases.csv")
        cases = cases[cases["plane"] == 0].assign(volume="", plane="")
        cases.assign(case=cases["group"]).to_csv(run.folder / "cases.csv", index=False)
        counts.to_csv(run.folder / "counts.csv", index=False)
        return Made(counts, run.folder)

    def samples(self, result, modes=SWEEP):
        """Stored predictions of two cases, a disc that grows with the value."""
        rows, columns = np.mgrid[:40, :48]
        distance = np.hypot(rows - 20, columns - 24)
        arrays, index = {}, []
        for number, case in enumerate(("p0_0", "p3_0")):
            arrays[f"image_{number}"] = (distance < 12).astype(np.float16) * 0.5
            arrays[f"label_{number}"] = (distance < 8).astype(np.uint8) * 2
            for place, mode in enumerate(modes):
                radius = 4 + float(mode.partition("=")[2] or 40) / 20
                arrays[f"pred_{number}_{place}"] = (distance < radius).astype(np.uint8) * 2
            index.append({"case": case, "domain": "all", "modes": list(modes)})
        np.savez(result.folder / "samples.npz", index=np.array(json.dumps(index)), **arrays)

    results = staticmethod(join)


@pytest.fixture
def volumes(tmp_path, one_pixel):
    """Writes runs on volumes."""
    return Volumes(tmp_path)


LABELS = ("triangle", "ring")
LABEL_MODES = ("normal", "shuffle", "fixed:triangle", "fixed:ring")


@pytest.fixture
def studied(tmp_path, bundle, tiny, finished):
    """Makes a study whose runs find so many of ten pixels with each seed; returns its folder."""

    def make(hits, references=(), **protocol):
        study = Study(
            name="Tiny <study>",
            question="Does metadata help?",
            bundle=str(bundle),
            conditions=list(hits),
            seeds=[0, 1, 2],
            settings={**tiny, "dataset_dir": "data"},
            protocol={"sample_size": 8, **protocol},
            references=list(references),
        )
        runs = expand(study)
        fix(study, runs, tmp_path)
        for run in runs:
            found = hits[run.condition][run.seed]
            modes = LABEL_MODES if run.condition in ("me", "sme") else ("normal",)
            if found is not None:
                finished(tmp_path, run, bundle, found, modes, LABELS)
        return tmp_path

    return make


@pytest.fixture
def one_pixel(monkeypatch):
    """Figures are one pixel, where it is no matter what they show."""
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    for module in (curves, predictions, ranking, values):
        monkeypatch.setattr(module, "png", lambda figure: pixel.getvalue())
