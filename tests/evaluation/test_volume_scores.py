from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.volumes import VOLUME_COLUMNS, VolumeScores, read_volumes
from metaseg_monai.metrics.volumes import make_regions, score_volume

REGIONS = {
    "masses": {"classes": [2, 3], "tolerance_mm": 1.1},
    "tumour": {"classes": [2], "tolerance_mm": 1.1},
}
SPACING = (4.0, 0.5, 0.5)


def label_of(seed, planes=5):
    label = np.zeros((planes, 12, 10), np.uint8)
    label[1:4, 2:10, 2:8] = 1
    label[1:3, 3:7, 3:7] = 2
    label[3, 8, 4 + seed] = 3
    return label


def pred_of(label, mode):
    return np.roll(label, {"normal": 1, "ones": 2}[mode], axis=1)


def one_hot(classes):
    return torch.nn.functional.one_hot(torch.from_numpy(classes).long(), 4).movedim(-1, 1).float()


def slices(volumes, modes=("normal", "ones"), keep=None):
    """One dict a slice and mode, in the order of a table."""
    return [
        {
            "case": f"{name}_{plane}", "group": f"patient {name}", "split": "test", "mode": mode,
            "volume": name, "plane": plane, "planes": len(label), "spacing_mm": SPACING,
            "label": label[plane][None], "pred": pred_of(label, mode)[plane],
        }
        for mode in modes
        for name, label in volumes.items()
        for plane in (keep or range(len(label)))
    ]  # fmt: skip


def batched(items, size=3, drop=()):
    for start in range(0, len(items), size):
        part = items[start : start + size]
        names = ("case", "group", "split", "mode", "volume")
        batch = {key: [item[key] for item in part] for key in names}
        for key in ("plane", "planes", "spacing_mm"):
            batch[key] = torch.tensor([item[key] for item in part])
        for key in drop:
            del batch[key]
        output = {
            "pred": one_hot(np.stack([item["pred"] for item in part])),
            "label": torch.from_numpy(np.stack([item["label"] for item in part])),
        }
        yield SimpleNamespace(names=batch, output=output)


class Loader(list):
    """Batches with the items they are made of, as a DataLoader has them."""

    def __init__(self, items, batches):
        super().__init__(batches)
        self.dataset = SimpleNamespace(data=items)


def evaluated(handler, items, batches=None):
    def step(engine, batch):
        engine.state.batch = batch.names
        return batch.output

    engine = Engine(step)
    handler.attach(engine)
    engine.run(Loader(items, batches or batched(items)))


def test_every_volume_mode_and_region_has_the_scores_of_its_stack(tmp_path):
    volumes = {"a": label_of(0), "b": label_of(2, planes=7)}
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), slices(volumes))
    table = read_volumes(tmp_path / "volumes.csv")
    assert table.columns.tolist() == VOLUME_COLUMNS
    assert table[["volume", "mode", "region"]].to_numpy().tolist() == [
        [name, mode, region]
        for mode in ("normal", "ones")
        for name in volumes
        for region in REGIONS
    ]
    assert set(table["group"]) == {"patient a", "patient b"}
    for _, row in table.iterrows():
        label = volumes[row["volume"]]
        pred = pred_of(label, row["mode"])
        scores = score_volume(pred, label, SPACING, make_regions(REGIONS))
        (expected,) = [score for score in scores if score.region == row["region"]]
        assert row[list(expected._fields)].tolist() == list(expected)
    assert (table["complete"] == 1).all()


def test_batches_cross_volumes_and_the_order_of_slices_does_not_matter(tmp_path):
    volumes = {"a": label_of(0), "b": label_of(2, planes=7)}
    items = slices(volumes)
    mixed = [items[place] for place in np.random.default_rng(0).permutation(len(items))]
    evaluated(VolumeScores(tmp_path / "one.csv", REGIONS), items)
    evaluated(VolumeScores(tmp_path / "two.csv", REGIONS), mixed, list(batched(mixed, size=5)))
    keys = ["mode", "volume", "region"]
    one, two = (
        read_volumes(tmp_path / name).sort_values(keys).reset_index(drop=True)
        for name in ("one.csv", "two.csv")
    )
    assert one.equals(two)


def test_a_volume_is_forgotten_as_soon_as_it_is_scored(tmp_path):
    handler = VolumeScores(tmp_path / "volumes.csv", REGIONS)
    held = []
    collect = handler.collect

    def watched(engine):
        collect(engine)
        held.append(sum(len(volume.planes) for volume in handler.open.values()))

    handler.collect = watched
    items = slices({name: label_of(0) for name in "abcd"})
    evaluated(handler, items)
    assert max(held) <= 5
    assert not handler.open


def test_planes_of_a_slice_rule_are_scored_at_their_place(tmp_path):
    label = label_of(0, planes=9)
    label[6:8, 3:6, 3:6] = 2
    keep = [1, 2, 3, 6, 7]
    items = slices({"a": label}, modes=("normal",), keep=keep)
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), items)
    table = read_volumes(tmp_path / "volumes.csv")
    assert table["complete"].tolist() == [0, 0]
    assert table["planes"].tolist() == [5, 5]
    assert table["lesions"].tolist() == [3, 2]
    pred = pred_of(label, "normal")
    scores = score_volume(pred[keep], label[keep], SPACING, make_regions(REGIONS), at=keep, count=9)
    assert table["surface_dice"].tolist() == [score.surface_dice for score in scores]


def test_undefined_distances_are_empty_cells(tmp_path):
    label = np.minimum(label_of(0), 1)
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), slices({"a": label}))
    line = (tmp_path / "volumes.csv").read_text().splitlines()[1]
    assert line == "a,patient a,test,normal,masses,1,5,1.0,1.0,,0.0,0.0,0.0,0,0,0"
    table = read_volumes(tmp_path / "volumes.csv")
    assert table["hd95_mm"].isna().all()
    assert table["hd95_mm"].dtype == float


def test_an_evaluation_that_is_cut_short_is_scored_as_incomplete(tmp_path):
    items = slices({"a": label_of(0)}, modes=("normal",))
    batches = list(batched(items, size=2))[:2]
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), items, batches)
    table = read_volumes(tmp_path / "volumes.csv")
    assert table["complete"].tolist() == [0, 0]
    assert table["planes"].tolist() == [4, 4]


def test_a_second_evaluation_starts_from_nothing(tmp_path):
    handler = VolumeScores(tmp_path / "volumes.csv", REGIONS)
    items = slices({"a": label_of(0)})
    evaluated(handler, items, list(batched(items, size=3))[:1])
    evaluated(handler, items)
    assert len(read_volumes(tmp_path / "volumes.csv")) == 4


def test_planes_of_an_evaluation_that_failed_are_forgotten(tmp_path):
    handler = VolumeScores(tmp_path / "volumes.csv", REGIONS)
    items = slices({"a": label_of(0)}, modes=("normal",))
    with pytest.raises(DataError, match="came twice"):
        evaluated(handler, items, list(batched([*items[:3], items[2]], size=1)))
    evaluated(handler, items)
    assert read_volumes(tmp_path / "volumes.csv")["complete"].tolist() == [1, 1]


def test_whole_volumes_of_3d_networks_have_their_planes_last(tmp_path):
    label = label_of(0)
    rows_columns_planes = label.transpose(1, 2, 0)
    pred = pred_of(label, "normal").transpose(1, 2, 0)
    batch = {
        "case": ["a"], "group": ["g"], "split": ["test"], "mode": ["normal"],
        "spacing_mm": torch.tensor([SPACING]),
    }  # fmt: skip
    output = {
        "pred": one_hot(pred.copy()[None]),
        "label": torch.from_numpy(rows_columns_planes.copy())[None, None],
    }
    items = [{"case": "a", "mode": "normal"}]
    step = SimpleNamespace(names=batch, output=output)
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), items, [step])
    table = read_volumes(tmp_path / "volumes.csv")
    assert table[["volume", "complete", "planes"]].to_numpy().tolist() == [["a", 1, 5]] * 2
    scores = score_volume(pred_of(label, "normal"), label, SPACING, make_regions(REGIONS))
    assert table["surface_dice"].tolist() == [score.surface_dice for score in scores]
    assert table["hd95_mm"].tolist() == [score.hd95_mm for score in scores]


def test_whole_volumes_are_called_by_their_volume_where_it_has_a_name(tmp_path):
    label = torch.from_numpy(label_of(0).transpose(1, 2, 0).copy())[None, None]
    batch = {
        "case": ["a"], "volume": ["scan 7"], "group": ["g"], "split": ["test"], "mode": ["normal"],
        "spacing_mm": torch.tensor([SPACING]),
    }  # fmt: skip
    step = SimpleNamespace(names=batch, output={"pred": one_hot(label[0].numpy()), "label": label})
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), [{"case": "a"}], [step])
    assert set(read_volumes(tmp_path / "volumes.csv")["volume"]) == {"scan 7"}


@pytest.mark.parametrize(("settings", "found"), [({}, 1), ({"found_share": 0.3}, 0)])
def test_the_share_that_finds_a_lesion_is_a_setting(tmp_path, settings, found):
    items = slices({"a": label_of(0)}, modes=("normal",))
    for item in items:  # a quarter of the tumour
        item["pred"] = np.where(item["label"][0] == 2, 2, 0)
        item["pred"][:, 4:] = 0
    evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS, **settings), items)
    table = read_volumes(tmp_path / "volumes.csv").set_index("region")
    assert table.loc["tumour", ["lesions", "lesions_found"]].tolist() == [1, found]


def test_planes_of_a_loader_that_does_not_tell_how_many_come_are_scored_at_the_end(tmp_path):
    handler = VolumeScores(tmp_path / "volumes.csv", REGIONS)
    evaluated(handler, [], list(batched(slices({"a": label_of(0)}, modes=("normal",)))))
    table = read_volumes(tmp_path / "volumes.csv")
    assert table[["complete", "planes"]].to_numpy().tolist() == [[1, 5]] * 2


@pytest.mark.parametrize("key", ["volume", "plane", "planes", "spacing_mm"])
def test_slices_without_their_place_are_refused(tmp_path, key):
    items = slices({"a": label_of(0)})
    with pytest.raises(ConfigError, match=f"have no {key}. The table needs"):
        evaluated(VolumeScores(tmp_path / "volumes.csv"), items, list(batched(items, drop=[key])))


def test_planes_that_do_not_belong_together_are_refused(tmp_path):
    def run(**change):
        items = slices({"a": label_of(0)}, modes=("normal",))
        items[3].update(change)
        evaluated(VolumeScores(tmp_path / "volumes.csv", REGIONS), items, list(batched(items, 1)))

    with pytest.raises(DataError, match=r"volume a \(mode normal\), plane 1: came twice"):
        run(plane=1)
    with pytest.raises(DataError, match=r"plane 3: .*\(11, 10\).*\(12, 10\)"):
        run(label=np.zeros((1, 11, 10), np.uint8), pred=np.zeros((11, 10), np.uint8))
    with pytest.raises(DataError, match="plane 3: spacing"):
        run(spacing_mm=(4.0, 0.5, 0.501))
    run(spacing_mm=(4.0, 0.5, 0.5001))  # rounded
    (tmp_path / "volumes.csv").unlink()
    with pytest.raises(DataError, match=r"volume a \(mode normal\): planes 0 to 8 of a"):
        run(plane=8)
    assert not (tmp_path / "volumes.csv").exists()


def test_wrong_settings_are_refused_before_the_evaluation(tmp_path):
    with pytest.raises(ConfigError, match="found_share"):
        VolumeScores(tmp_path / "volumes.csv", found_share=0)
    with pytest.raises(ConfigError, match=r"regions is 30; expected .*null to score no volumes"):
        VolumeScores(tmp_path / "volumes.csv", 30)


@pytest.mark.parametrize("off", [None, {}])
def test_without_regions_the_scores_of_an_earlier_evaluation_go(tmp_path, off):
    path, items = tmp_path / "volumes.csv", slices({"a": label_of(0)})
    evaluated(VolumeScores(path, REGIONS), items)
    handler = VolumeScores(path, off)
    assert path.exists()  # until the evaluation is complete
    evaluated(handler, items, list(batched(items, drop=["plane", "spacing_mm"])))
    assert not path.exists()
    evaluated(handler, items)  # nothing to remove
    path.write_text("volume,ours\n")
    evaluated(handler, items)
    assert path.exists()


def test_missing_foreign_or_damaged_tables_are_refused(tmp_path):
    path = tmp_path / "volumes.csv"
    with pytest.raises(DataError, match="no scores of volumes"):
        read_volumes(path)
    path.write_text("")
    with pytest.raises(DataError, match="no table of volumes"):
        read_volumes(path)
    path.write_text("volume,mode\na,normal\n")
    with pytest.raises(DataError, match="lacks group"):
        read_volumes(path)
    head = ",".join(VOLUME_COLUMNS)
    good = "a,g,test,normal,tumour,1,5,0.9,0.8,,1.0,1.0,0.0,1,1,0"
    for line, message in [
        (good.replace("0.9", "x"), "dice must be numbers"),
        (good.replace("0.9", ""), "dice must be numbers"),
        (good.replace("0.9", "-0.9"), "dice must be numbers"),
        (good.replace("0.9", "1.9"), "at most 1"),
        (good.replace("0.8", "1.8"), "at most 1"),
        (good.replace("tumour,1", "tumour,2"), "at most 1"),
        (f"{good}\n{good}", "volume a, mode normal, region tumour stands there twice"),
    ]:
        path.write_text(f"{head}\n{line}\n")
        with pytest.raises(DataError, match=message):
            read_volumes(path)
    path.write_text(f"{head}\n{good}\n")
    assert len(read_volumes(path)) == 1
