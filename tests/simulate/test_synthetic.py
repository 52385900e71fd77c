import hashlib
import multiprocessing

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.simulate import SHAPES, generate_synthetic_shapes, synthetic_table
from metaseg_monai.tables import check_table, read_table

FEW = {"train": 12, "val": 6, "test": 6, "size": 32}


@pytest.fixture
def schema():
    values = tuple(SHAPES)
    when = {"provenance": "acquisition", "availability": "acquisition"}
    return MetadataSchema([Categorical(name="task", values=values, **when)])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_table_and_files_pass_the_deep_check(tmp_path, schema):
    table = generate_synthetic_shapes(tmp_path / "x", **FEW)
    assert table == tmp_path / "x" / "table.csv"
    problems, warnings, summary = check_table(table, schema)
    assert problems == []
    assert warnings == []
    assert "32x32 (24)" in summary
    items = read_table(table, schema).items("train")
    assert len(items) == 12
    assert {sum(item["metadata"]["task"] == name for item in items) for name in SHAPES} == {2}
    image, label = read_image(items[0]["image"]).array, read_image(items[0]["label"]).array
    assert image.dtype == label.dtype == np.uint8
    assert np.unique(image).tolist() == [0, 255]
    assert np.unique(label).tolist() == [0, 1]


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        generate_synthetic_shapes(tmp_path / name, **FEW, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    images = [name for name in a if name.startswith("images/")]
    assert not any(a[name] == c[name] for name in images)
    assert len({a[name] for name in images}) == len(images) == 24


def test_more_images_keep_the_first(tmp_path):
    generate_synthetic_shapes(tmp_path / "a", train=6, val=0, test=0, size=32)
    generate_synthetic_shapes(tmp_path / "b", train=9, val=0, test=0, size=32)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    images = [name for name in a if name.startswith("images/")]
    assert all(a[name] == b[name] for name in images)


def test_folder_with_files_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        generate_synthetic_shapes(tmp_path, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_empty_folder_is_used(tmp_path):
    (tmp_path / "x").mkdir()
    assert generate_synthetic_shapes(tmp_path / "x", **FEW).is_file()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 31}, "size=31.*at least 32"),
        ({"train": -1}, "train=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"train": 0, "val": 0, "test": 0}, "all 0"),
    ],
)
def test_wrong_settings_write_nothing(tmp_path, setting, message):
    with pytest.raises(DataError, match=message):
        generate_synthetic_shapes(tmp_path / "x", **{**FEW, **setting})
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("metaseg_monai.simulate.shapes.write_table", full)
    with pytest.raises(OSError, match="disk full"):
        generate_synthetic_shapes(tmp_path / "x", **FEW)
    assert list(tmp_path.iterdir()) == []


def test_default_folder_is_filled_once_and_said_so(tmp_path, schema, caplog):
    default = tmp_path / "data"
    table = synthetic_table(default, default, schema, **FEW)
    assert len(table.rows) == 24
    assert "generating" in caplog.text
    caplog.clear()
    before = contents(default)
    assert synthetic_table(default, default, schema, **FEW) == table
    assert caplog.text == ""
    assert contents(default) == before


def test_default_folder_of_other_settings_is_refused(tmp_path, schema):
    synthetic_table(tmp_path / "d", tmp_path / "d", schema, **FEW)
    with pytest.raises(DataError, match="made with size=32, asked for size=40"):
        synthetic_table(tmp_path / "d", tmp_path / "d", schema, **{**FEW, "size": 40})


@pytest.mark.parametrize("exists", [True, False])
def test_other_folder_is_never_filled(tmp_path, schema, exists):
    if exists:
        (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"missing or empty.*generate synthetic-shapes"):
        synthetic_table(tmp_path / "mine", tmp_path / "d", schema, **FEW)
    assert not list(tmp_path.glob("mine/*"))


def test_wrong_folder_is_an_error(tmp_path, schema):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(DataError, match="no such table"):
        synthetic_table(tmp_path, tmp_path, schema, **FEW)


def _fill(folder, barrier, results):
    values = tuple(SHAPES)
    when = {"provenance": "acquisition", "availability": "acquisition"}
    schema = MetadataSchema([Categorical(name="task", values=values, **when)])
    barrier.wait(60)
    results.put(len(synthetic_table(folder, folder, schema, **FEW).rows))


def test_two_processes_at_once_end_with_the_same_data(tmp_path):
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        barrier, results = context.Barrier(2), context.Queue()
        both = [context.Process(target=_fill, args=(folder, barrier, results)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in both] == [0, 0]
        assert [results.get(timeout=10) for _ in both] == [24, 24]
        assert (folder / "table.csv").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == list("01234")
