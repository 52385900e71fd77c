"""One bad item among many, and a prediction that is stopped: the others are done, once."""

import json
import os
import resource
import signal
import subprocess

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.evaluation import (
    CaseCounts,
    MaskRecord,
    PerCase,
    SaveMasks,
    SaveObjects,
    read_counts,
)
from metaseg_monai.evaluation.predicted import LEFT_OUT, OTHERS
from metaseg_monai.images.read import slice_items
from metaseg_monai.inferers import SlidingWindowMetadataInferer
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.find import find_cases
from metaseg_monai.training import (
    ListProblems,
    LoadWeights,
    SiftedDataset,
    VolumeBatches,
    collate_cases,
    skip_empty,
)
from metaseg_monai.transforms import LoadCased, ScaleIntensityCased

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
PARTS = [LoadCased(in_channels=1), ScaleIntensityCased([0, 255])]


class Bright(torch.nn.Module):
    """Class 1 where a pixel is bright; counts the images that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, image):
        self.seen += len(image)
        return torch.cat([0.5 - image, image - 0.5], dim=1)


def picture(path, seed=0, shape=(20, 30)):
    array = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        PIL.Image.fromarray(array).save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        nib.save(nib.Nifti1Image(array.astype(np.int16)[..., None].repeat(3, -1), AFFINE), path)
    return path


def cut(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def predict(source, out, weights="w1", settings=None, save=SaveMasks, workers=0, **finding):
    """As inference.json does; return the engine's network, what was found, and the record."""
    problems = ListProblems(out)
    items = find_cases(source, problems=problems.found, **finding)
    items = slice_items(items, problems=problems.found)
    known = LoadWeights("none", torch.nn.Identity())
    known.recorded = {"weights_sha256": weights}
    tables = ["objects.csv", "wells.csv"] if save is SaveObjects else []
    record = MaskRecord(out, known, settings, tables)
    todo = record.missing(items)
    network = Bright()
    more = {"problems": problems.found} if save is SaveMasks else {}
    if todo:
        SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(
                SiftedDataset(todo, PARTS),
                batch_sampler=VolumeBatches(todo, 2),
                num_workers=workers,
                collate_fn=collate_cases,
            ),
            network=network,
            iteration_update=skip_empty,
            val_handlers=[save(out, record=record, **more), problems],
            decollate=False,
        ).run()
    problems.finish(len(record.kept))
    return network, problems.found, record


def rows(out):
    return [row for _, row in read_lines(out / "problems.csv")[1]]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_images_of_every_format_are_listed_and_the_others_predicted(tmp_path, workers):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate(("a.png", "b.tif", "c.nii", "d.png", "e.nii.gz", "f.nii")):
        picture(source / name, seed)
    picture(source / "rgba.png", 9, (20, 30, 4))
    cut(source / "a.png")
    cut(source / "e.nii.gz")
    (source / "c.nii").write_bytes(b"no header")  # found before any pixel is read
    _, found, record = predict(source, out, workers=workers)
    assert record.cases_done == ["b", "d", "f"]
    assert sorted(path.name for path in out.iterdir()) == [
        "b.tif", "d.png", "f.nii", "predicted.sha256", "problems.csv",
    ]  # fmt: skip
    assert {row["case"] for row in rows(out)} == {"a", "c", "e", "rgba"}
    assert all(row["file"].startswith(str(source)) and row["next_step"] for row in rows(out))
    assert [problem.case for problem in found].count("e") == 1  # of three planes
    picture(source / "a.png")
    assert predict(source, out, workers=workers)[2].cases_done == ["a", "b", "d", "f"]


def test_a_plane_that_is_broken_takes_its_volume_alone(tmp_path, monkeypatch):
    for name in "vw":
        picture(tmp_path / "in" / f"{name}.nii")
    read = SiftedDataset.__getitem__

    def broken(self, index):
        item = self.data[index]
        known = item["volume"] == "v" and item["plane"] == 1
        return {"problem": Problem("v", "v.nii", "torn", "mend it")} if known else read(self, index)

    monkeypatch.setattr(SiftedDataset, "__getitem__", broken)
    _, found, record = predict(tmp_path / "in", tmp_path / "out")
    assert [problem.problem for problem in found] == ["torn"]
    assert record.cases_done == ["w"]
    assert not (tmp_path / "out" / "v.nii").exists()


def test_a_row_with_a_wrong_value_leaves_out_its_case(tmp_path):
    told = {"provenance": "acquisition", "availability": "acquisition", "missing": "error"}
    field = Categorical(name="task", description="t", values=["disc", "ring"], **told)
    schema = MetadataSchema([field])
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png")
    lines = ["image,task", "a.png,disc", "b.png,dsic", "c.png,ring", "missing.png,ring"]
    (tmp_path / "in" / "table.csv").write_text("\n".join(lines))
    _, found, record = predict(tmp_path / "in", tmp_path / "out", schema=schema)
    assert record.cases_done == ["a", "c"]
    assert [problem.case for problem in found] == ["b", "missing"]
    assert "use one of these names" in found[0].next_step
    (tmp_path / "meta.csv").write_text("case_id,task\na,disc\nb,dsic\n")  # c has no row
    (tmp_path / "in" / "table.csv").unlink()
    found: list[Problem] = []
    given = {"schema": schema, "metadata": tmp_path / "meta.csv", "problems": found}
    assert [item["case"] for item in find_cases(tmp_path / "in", **given)] == ["a"]
    assert [problem.case for problem in found] == ["b", "c"]


def test_every_task_on_a_damaged_image_is_told(tmp_path):
    told = {"provenance": "acquisition", "availability": "acquisition", "missing": "error"}
    field = Categorical(name="task", description="t", values=["disc", "ring"], **told)
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    cut(tmp_path / "in" / "a.png")
    lines = ["image,task", *(f"{a}.png,{b}" for a in "ab" for b in field.values)]
    (tmp_path / "in" / "table.csv").write_text("\n".join(lines))
    schema = MetadataSchema([field])
    _, found, record = predict(tmp_path / "in", tmp_path / "out", schema=schema)
    assert [problem.case for problem in found] == ["a__disc", "a__ring"]
    assert record.cases_done == ["b__disc", "b__ring"]


def test_a_batch_of_which_nothing_can_be_done_is_refused(tmp_path):
    for name in "ab":
        cut(picture(tmp_path / "in" / f"{name}.png"))
    with pytest.raises(DataError, match=r"none of 2 item\(s\) could be done: a: .*a.png"):
        predict(tmp_path / "in", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 2


def test_only_what_changed_is_predicted_again(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate(("a.png", "b.tif", "v.nii")):
        picture(source / name, seed)
    assert predict(source, out)[0].seen == 5  # of which three planes
    assert predict(source, out)[0].seen == 0
    picture(source / "a.png", 7)
    (out / "b.tif").unlink()
    assert predict(source, out)[0].seen == 2
    assert predict(source, out, weights="w2")[0].seen == 5
    assert predict(source, out, weights="w2", settings={"threshold": 0.4})[0].seen == 5
    text = (out / "predicted.sha256").read_text()
    assert text.count('"weights_sha256": "w2"') == 3
    assert "w1" not in text
    done = subprocess.run(["sha256sum", "-c", "predicted.sha256"], cwd=out, capture_output=True)
    assert done.returncode == 0
    assert not done.stderr


def test_objects_go_on_with_the_same_tables(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed in range(3):
        picture(source / f"{seed}.tif", seed)
    predict(source, out, save=SaveObjects)
    before = {name: (out / name).read_bytes() for name in ("objects.csv", "wells.csv")}
    (out / "1_objects.tif").unlink()
    assert predict(source, out, save=SaveObjects)[0].seen == 1
    assert {name: (out / name).read_bytes() for name in before} == before
    (out / "wells.csv").unlink()  # a kill before the tables were written
    assert predict(source, out, save=SaveObjects)[0].seen == 1
    assert {name: (out / name).read_bytes() for name in before} == before


def run_limited(act, source, out):
    """Predict in a copy of this process, which `act` limits or kills; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            act()
            predict(source, out)
        except DataError:
            os._exit(2)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("moment", range(5))
def test_after_a_kill_at_any_moment_nothing_is_foreign_and_nothing_repeated(
    tmp_path, monkeypatch, moment
):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed in range(4):
        picture(source / f"{seed}.png", seed)
    kills = {"open": 0}

    def kill():
        def last_words(*arguments, real=os.fsync):
            kills["open"] += 1
            if kills["open"] == moment + 4:  # of a mask, of the list, of the folder, ...
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        monkeypatch.setattr(os, "fsync", last_words)

    assert os.WTERMSIG(run_limited(kill, source, out)) == signal.SIGKILL
    monkeypatch.undo()
    there = len(list(out.glob("[0-9].png")))
    network, found, record = predict(source, out)
    assert network.seen == 4 - there
    assert len(record.cases_done) == 4
    assert not found
    assert sorted(path.name for path in out.iterdir()) == [
        "0.png", "1.png", "2.png", "3.png", "predicted.sha256",
    ]  # fmt: skip


def test_a_full_disk_is_told_and_the_prediction_goes_on(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed in range(4):
        picture(source / f"{seed}.png", seed)

    for limit in (60, 200, 500, 700):

        def limited(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        assert os.WEXITSTATUS(run_limited(limited, source, out)) == 2
    there = len(list(out.glob("[0-9].png")))
    assert there > 0
    network, _, record = predict(source, out)
    assert network.seen == 4 - there
    assert len(record.cases_done) == 4


def test_a_mask_corrected_by_hand_is_kept(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    picture(source / "a.png")
    predict(source, out)
    picture(out / "a.png", 5)
    with pytest.raises(DataError, match=r"1 file.* changed since .*'a.png'; choose another output"):
        predict(source, out)


def test_masks_that_a_prediction_does_not_stand_for_are_told(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate(("a.png", "b.tif", "v.nii")):
        picture(source / name, seed)
    assert not predict(source, out)[2].earlier(set())
    cut(source / "a.png")
    _, found, record = predict(source, out)
    assert record.earlier({one.case for one in found}) == {LEFT_OUT: {"a": "a.png"}}
    (source / "a.png").unlink()
    (source / "b.tif").unlink()
    _, _, record = predict(source, out, weights="w2")
    assert record.earlier(set()) == {OTHERS: {"a": "a.png", "b": "b.tif"}}
    _, _, record = predict(source, out, settings={"guidance": 0.5})
    assert record.earlier(set()) == {OTHERS: {"a": "a.png", "b": "b.tif"}}
    (out / "b.tif").unlink()
    picture(out / "a.png", 5)  # no mask of any prediction any more
    assert not predict(source, out, weights="w2")[2].earlier(set())


def test_a_damaged_list_is_no_crash(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    picture(source / "a.png")
    predict(source, out)
    lines = (out / "predicted.sha256").read_text().splitlines()
    for comment in ("# {", "# []", "#", '# {"of": 3}', json.dumps(None)):
        (out / "predicted.sha256").write_text(f"{comment}\n{lines[1]}\n")
        assert predict(source, out)[0].seen == 1


def test_what_an_unforeseen_error_says_stands_in_the_list(tmp_path):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")

    def strange(item):
        if item["case"] == "b":
            raise ZeroDivisionError("by zero")
        return item

    items = find_cases(tmp_path / "in")
    good, bad = (SiftedDataset(items, strange)[number] for number in (0, 1))
    assert good["case"] == "a"
    assert bad["problem"].problem == "unforeseen ZeroDivisionError: by zero"
    batch = collate_cases([bad])
    assert batch == {"case": [], "problem": [bad["problem"]]}


def test_a_fault_of_one_row_is_none_of_another_row_of_the_file(tmp_path):
    picture(tmp_path / "a.tif")

    def faulty(item):
        if item["case"] in ("nuclei", "v_0000"):
            raise MemoryError
        return item

    rows = [{"image": str(tmp_path / "a.tif"), "case": case} for case in ("nuclei", "cytoplasm")]
    planes = [{**rows[0], "case": f"v_000{plane}", "volume": "v"} for plane in (0, 1)]
    told = [SiftedDataset([*rows, *planes], faulty)[number] for number in (0, 1)]
    assert ["problem" in item for item in told] == [True, False]
    data = SiftedDataset(planes, faulty)
    assert ["problem" in data[number] for number in (0, 1)] == [True, True]  # one result


def test_a_batch_that_is_broken_in_part_counts_the_rest(tmp_path, monkeypatch):
    for seed, name in enumerate("abcd"):
        picture(tmp_path / f"{name}.tif", seed)
        tifffile.imwrite(tmp_path / f"{name}_label.tif", np.zeros((20, 30), np.uint8))
    cut(tmp_path / "b.tif")
    common = {"group": "g", "split": "test", "mode": "normal", "domain": "x", "metadata": {}}
    items = [
        {"image": str(tmp_path / f"{name}.tif"), "label": str(tmp_path / f"{name}_label.tif")}
        | {"case": name, **common}
        for name in "abcd"
    ]
    items.insert(3, {**items[1], "case": "b_of_another_task"})
    problems = ListProblems(tmp_path / "out", at_least_one=True)

    def evaluate(items):
        engine = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(
                SiftedDataset(items, PARTS), batch_size=2, collate_fn=collate_cases
            ),
            network=Bright(),
            iteration_update=skip_empty,
            val_handlers=[PerCase(tmp_path / "out" / "counts.csv", CaseCounts(2)), problems],
            decollate=False,
        )
        monkeypatch.setattr(engine.logger, "disabled", True)  # shared by all engines
        engine.run()
        return engine

    engine = evaluate(items)
    assert [problem.case for problem in engine.state.problems] == ["b", "b_of_another_task"]
    before = read_counts(tmp_path / "out" / "counts.csv")
    assert list(before["case"]) == ["a", "c", "d"]
    problems = ListProblems(tmp_path / "out", at_least_one=True)
    with pytest.raises(DataError, match="none of 1"):
        evaluate(items[1:2])
    assert read_counts(tmp_path / "out" / "counts.csv").equals(before)


@pytest.mark.parametrize("when", ["windows", "mask"])
def test_an_image_that_goes_while_it_is_predicted_ends_no_batch(tmp_path, monkeypatch, when):
    for where in ("images.tiff", "tables.check", "inferers.sliding"):
        monkeypatch.setattr(f"metaseg_monai.{where}.LARGE_PIXELS", 100)
    items = []
    for seed, name in enumerate("abc"):
        picture(tmp_path / f"{name}.tif", seed)
        pixels = tifffile.imread(tmp_path / f"{name}.tif")
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, rowsperstrip=4)
        items.append({"image": str(tmp_path / f"{name}.tif"), "case": name, "metadata": {}})

    class Vanishing(Bright):
        def forward(self, image):
            (tmp_path / "a.tif").unlink(missing_ok=True)
            return super().forward(image)

    size = [10, 30] if when == "windows" else [20, 30]
    problems = ListProblems(tmp_path / "out")
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(SiftedDataset(items, PARTS), collate_fn=collate_cases),
        network=Vanishing(),
        inferer=SlidingWindowMetadataInferer(size, sw_batch_size=1, overlap=0),
        iteration_update=skip_empty,
        val_handlers=[SaveMasks(tmp_path / "out", problems=problems.found), problems],
        decollate=False,
    )
    monkeypatch.setattr(engine.logger, "disabled", True)  # of all engines of this class
    engine.run()
    (problem,) = problems.finish()
    assert (problem.case, problem.file) == ("a", str(tmp_path / "a.tif"))
    assert {path.stem for path in (tmp_path / "out").glob("*.tif")} == {"b", "c"}
