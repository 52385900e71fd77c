"""The files of an evaluation appear together, and belong to the weights that made them."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from metaseg_monai.errors import CheckpointError, DataError
from metaseg_monai.evaluation import (
    CalibrationBins,
    CaseCounts,
    KnownOfCases,
    PerCase,
    PredictionSamples,
    RecordEvaluation,
    read_counts,
)
from metaseg_monai.evaluation.provenance import check_results, settle
from metaseg_monai.evaluation.samples import read_samples
from metaseg_monai.files import file_sha256, write_json
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.owners import owned
from metaseg_monai.tables import CaseTable
from metaseg_monai.training import read_weights, write_weights

SCHEMA = MetadataSchema(
    [
        Categorical(
            name="task", values=("a", "b"), provenance="acquisition", availability="acquisition"
        )
    ]
)
LABEL = torch.zeros(2, 1, 4, 6)
LABEL[0, 0, 1:3, 1:3] = 1
FILES = {
    "calibration.csv",
    "cases.csv",
    "classes.json",
    "counts.csv",
    "samples.npz",
    "schema.json",
}


class Model:
    """A folder with weights, and the table that they are tested on."""

    def __init__(self, folder, run):
        self.folder, self.run, self.files = folder / "run", run, {}
        self.train(0)
        table = folder / "table.csv"
        table.write_text("image\n")
        row = {"group": "g", "split": "test", "metadata": {"task": "a"}}
        self.table = CaseTable(table, tuple({"case": name, **row} for name in "ab"))

    def train(self, seed):
        self.folder.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        best = {"metric": "val_loss", "value": 0.5, "epoch": 2}
        write_weights(self.folder / "model.pt", nn.Linear(1, 1), {"best": best})
        (self.folder / "log.csv").write_text("epoch,val_loss\n1,0.75\n2,0.5\n")

    def evaluate(self, *modes, split="test", folder=None, weights=None, **settings):
        """Evaluate as a bundle does; the predictions are a matter of the mode."""
        folder = folder or self.folder
        path = weights or self.folder / "model.pt"
        recorded = read_weights(path)[1]
        weights = SimpleNamespace(path=path, recorded=recorded, schema=None, members=())
        measures = {
            "counts.csv": CaseCounts(2),
            "calibration.csv": CalibrationBins(2),
            "cases.csv": KnownOfCases(self.table, SCHEMA),
            "samples.npz": PredictionSamples(per_domain=2),
        }
        handlers = [PerCase(folder / name, measure) for name, measure in measures.items()]
        handlers.append(
            RecordEvaluation(
                folder / "evaluation.json", weights, self.table, split, settings, modes
            )
        )
        names = {"case": ["a", "b"], "group": ["1", "2"], "split": [split] * 2}
        names |= {"domain": ["x", "y"], "image": LABEL}
        pairs = []
        for mode in modes:
            pred = torch.stack([1 - LABEL[:, 0], LABEL[:, 0].roll(len(mode), -1)], 1)
            output = {"label": MetaTensor(LABEL), "pred": MetaTensor(pred)}
            pairs.append((names | {"mode": [mode] * 2}, output))
        attach = SimpleNamespace(attach=lambda engine: [one.attach(engine) for one in handlers])
        items = [{"mode": mode, "case": case, **self.files} for mode in modes for case in "ab"]
        return self.run(attach, pairs, items)

    def record(self):
        return json.loads((self.folder / "evaluation.json").read_text())

    def contents(self, folder=None):
        return {name: (folder or self.folder).joinpath(name).read_bytes() for name in FILES}


@pytest.fixture
def model(tmp_path, run):
    return Model(tmp_path, run)


def test_an_evaluation_says_which_weights_made_which_files(model):
    state = model.evaluate("normal", "ones", clean_up=None)
    file = model.folder / "model.pt"
    facts = read_weights(file)[1]
    digest = facts["weights_sha256"]
    assert model.record() == {
        "weights_sha256": digest,
        "model": {"sha256": file_sha256(file), "weights_sha256": digest, "best": facts["best"]},
        "split": "test",
        "images": "unknown",  # there is no trained_on.csv
        "table_sha256": file_sha256(model.table.path),
        "data_sha256": None,  # of no files
        "modes": ["normal", "ones"],
        "asked": ["normal", "ones"],
        "settings": {"clean_up": None},
        "left_out": {},
        "log_sha256": file_sha256(model.folder / "log.csv"),
        "files": {name: file_sha256(model.folder / name) for name in sorted(FILES)},
    }
    assert {path.name for path in state.written} == {*FILES, "evaluation.json"}
    assert check_results(model.folder) == model.record()


def test_weights_are_read_again_only_where_their_file_has_changed(model, monkeypatch):
    model.evaluate("normal")
    with monkeypatch.context() as patched:
        patched.setattr("metaseg_monai.evaluation.provenance.read_weights", None)
        check_results(model.folder)
    file = model.folder / "model.pt"
    before, facts = file_sha256(file), read_weights(file)[1]
    network = nn.Linear(1, 1)
    network.load_state_dict(read_weights(file)[0])
    write_weights(file, network, {"best": facts["best"], "variant": "se"})
    assert file_sha256(file) != before
    check_results(model.folder)  # of the same values in another file


@pytest.mark.parametrize("damage", [None, [], {}, {"sha256": ""}, {"best": []}, {"value": {}}])
def test_what_is_damaged_in_the_note_on_the_weights_is_read_from_them(model, damage):
    model.evaluate("normal")
    record = model.record()
    known = damage
    if damage:  # in a note that is right otherwise
        best = {**record["model"]["best"], **damage}
        known = {**record["model"], **({"best": best} if "value" in damage else damage)}
    write_json(model.folder / "evaluation.json", {**record, "model": known})
    check_results(model.folder)


def test_further_modes_are_added_as_if_all_had_been_asked_for(model):
    model.evaluate("normal", "ones")
    model.evaluate("shuffle", "ones")
    added = model.contents()
    assert model.record()["modes"] == ["normal", "ones", "shuffle"]
    assert not (model.folder / "previous").exists()
    shutil.rmtree(model.folder)
    model.train(0)
    model.evaluate("normal", "ones", "shuffle")
    assert model.contents() == added
    assert list(read_samples(model.folder / "samples.npz")[0].preds) == model.record()["modes"]


@pytest.mark.parametrize(
    "change", ["weights", "table", "settings", "split", "image", "label", "series", "damage", "old"]
)
def test_what_differs_is_never_added_but_moved_aside(model, tmp_path, change):
    for name in ("image", "label", "series/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    model.files = {"image": [str(tmp_path / "image"), str(tmp_path / "series")]}
    model.files["label"] = str(tmp_path / "label")
    model.evaluate("normal", "ones", objects=1)
    before, more = model.contents(), {"objects": 1}
    if change == "weights":
        model.train(1)
    elif change == "table":
        model.table.path.write_text("image\nmore\n")
    elif change in ("image", "label", "series"):
        (tmp_path / {"series": "series/1"}.get(change, change)).write_text("new")
    elif change == "settings":
        more = {"objects": 2}
    elif change == "split":
        more |= {"split": "other"}
    elif change == "damage":
        before["counts.csv"] = before["counts.csv"].replace(b"ones", b"nose")
        (model.folder / "counts.csv").write_bytes(before["counts.csv"])
    else:
        (model.folder / "evaluation.json").unlink()
    model.evaluate("zeros", **more)
    assert set(read_counts(model.folder / "counts.csv")["mode"]) == {"zeros"}
    assert model.record()["modes"] == ["zeros"]
    assert model.contents(model.folder / "previous" / "evaluation-1") == before
    check_results(model.folder)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "counts.csv").write_bytes(b"case"), r"counts\.csv has changed"),
        (lambda f: (f / "samples.npz").unlink(), r"samples\.npz is gone"),
        (lambda f: (f / "volumes.csv").touch(), r"volumes\.csv is not of the evaluation"),
        (lambda f: (f / "evaluation.json").unlink(), r"evaluation\.json.* is missing"),
        (lambda f: (f / "evaluation.json").write_text("{"), r"evaluation\.json.* is damaged"),
        (lambda f: (f / "evaluation.json").write_text("[]"), r"evaluation\.json.* is damaged"),
        (
            lambda f: write_weights(f / "model.pt", nn.Linear(1, 1), {}),
            r"model\.pt holds other weights than those that were evaluated",
        ),
        (
            lambda f: (f / "log.csv").write_text("epoch,val_loss\n1,0.4\n2,0.6\n"),
            r"log\.csv is of another training",
        ),
        (
            lambda f: (f / "log.csv").write_text("epoch,val_loss\n1,0.4\n2,0.5\n"),
            r"log\.csv has changed since",
        ),
        (lambda f: (f / "log.csv").unlink() or (f / "log.csv").mkdir(), r"log\.csv is no file"),
        (
            lambda f: (f / "log.csv").write_text("epoch,val_loss\n1,0.75\n2,0.5\0\0\n"),
            r"log\.csv has changed since",
        ),
    ],
)
def test_a_mixture_is_refused_with_the_command_that_ends_it(model, harm, told):
    model.evaluate("normal")
    harm(model.folder)
    with pytest.raises(DataError, match=rf"run: {told}.*Evaluate anew: .* evaluate {model.folder}"):
        check_results(model.folder)


def test_results_may_move_be_copied_and_go_without_weights(model, tmp_path):
    model.evaluate("normal")
    shutil.copytree(model.folder, tmp_path / "a copy")
    model.folder.rename(tmp_path / "moved")
    for folder in (tmp_path / "a copy", tmp_path / "moved"):
        check_results(folder)
        (folder / "model.pt").unlink()
        check_results(folder)
    (tmp_path / "moved" / "model.pt").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        check_results(tmp_path / "moved")


@pytest.mark.parametrize("name", ["explain", "train_split", "val_split", "run"])
def test_a_model_may_be_called_as_a_folder_of_results(model, name):
    model.folder = model.folder.rename(model.folder.with_name(name))
    model.evaluate("normal")
    assert model.record()["log_sha256"] == file_sha256(model.folder / "log.csv")
    model.train(1)
    with pytest.raises(DataError, match=rf"{name}: model\.pt holds other weights"):
        check_results(model.folder)


def test_results_of_other_weights_are_not_put_beside_these(model, tmp_path):
    other = tmp_path / "other.pt"
    write_weights(other, nn.Linear(1, 1), {})
    with pytest.raises(DataError, match=r"run holds other weights than .*other\.pt"):
        model.evaluate("normal", weights=other)
    assert not (model.folder / "counts.csv").exists()


class KilledError(BaseException):
    """Ends a run as a kill does: nothing is caught, nothing tidied up."""


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("again", [True, False], ids=["other", "added"])
def test_a_kill_at_any_write_leaves_the_old_or_the_new_evaluation_whole(
    model, monkeypatch, again, every
):
    """Whatever renaming or opening is the last: results are those before, or those after."""
    moves = ("rename", "replace")
    real = {name: getattr(type(model.folder), name) for name in moves}
    left = [10**9]

    def counted(name):
        def move(path, target):
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return real[name](path, target)

        return move

    for name in moves:
        monkeypatch.setattr(type(model.folder), name, counted(name))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    outcomes = []
    for steps in range(0, 100, every):
        monkeypatch.undo() if steps == 100 else None
        left[0] = 10**9
        for path in sorted(model.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        model.train(0)
        model.evaluate("normal", objects=1)
        old = model.contents()
        left[0] = steps
        try:
            model.evaluate("ones", objects=2 if again else 1)
        except KilledError:
            left[0] = 10**9
            modes = check_results(model.folder)["modes"]
            assert sorted(set(read_counts(model.folder / "counts.csv")["mode"])) == sorted(modes)
            if modes == ["normal"]:
                assert model.contents() == old
            elif again:
                assert model.contents(model.folder / "previous" / "evaluation-1") == old
            outcomes.append(tuple(modes))
        else:
            break
    assert set(outcomes) == {("normal",), ("ones",) if again else ("normal", "ones")}
    assert len(outcomes) * every > 10


def test_half_an_evaluation_is_never_taken_for_one(model):
    (model.folder / ".evaluation").mkdir()
    (model.folder / ".evaluation" / "counts.csv").write_text("half")
    settle(model.folder)
    assert not (model.folder / ".evaluation").exists()
    assert not (model.folder / "counts.csv").exists()


def test_nobody_puts_into_its_place_what_another_is_about_to(model):
    model.evaluate("normal")
    (model.folder / ".evaluation").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with owned(model.folder, "is evaluating here"):
            with pytest.raises(DataError, match="is at work there; wait until it ends"):
                pool.submit(check_results, model.folder).result()
            assert (model.folder / ".evaluation").exists()
        pool.submit(check_results, model.folder).result()
    assert not (model.folder / ".evaluation").exists()


def test_a_full_disk_leaves_the_old_evaluation(model, monkeypatch):
    model.evaluate("normal")
    old = model.contents()
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        model.evaluate("ones")
    monkeypatch.undo()
    assert model.contents() == old
    assert check_results(model.folder)["modes"] == ["normal"]
    assert not list(model.folder.glob(".part*"))
