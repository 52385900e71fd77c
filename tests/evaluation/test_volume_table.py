import numpy as np
import pytest
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.volume_table import VOLUMES, VolumeScores, read_volumes
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


def pred_of(label, mode="normal"):
    return np.roll(label, {"normal": 1, "ones": 2}[mode], axis=1)


def expected(label, pred=None, **settings):
    pred = pred_of(label) if pred is None else pred
    return score_volume(pred, label, SPACING, make_regions(REGIONS), **settings)


def logits(classes):
    return torch.nn.functional.one_hot(torch.from_numpy(classes).long(), 4).movedim(-1, 1).float()


def slices(volumes, modes=("normal",), keep=None):
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
    """Pairs of batch and output."""
    pairs = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        names = ("case", "group", "split", "mode", "volume")
        batch = {key: [item[key] for item in part] for key in names}
        for key in ("plane", "planes", "spacing_mm"):
            batch[key] = torch.tensor([item[key] for item in part])
        pred = logits(np.stack([item["pred"] for item in part]))
        label = torch.from_numpy(np.stack([item["label"] for item in part]))
        kept = {key: batch[key] for key in batch.keys() - set(drop)}
        pairs.append((kept, {"pred": pred, "label": label}))
    return pairs


def whole(label, **names):
    """A pair of a whole volume, planes last, as 3D networks have it."""
    pred, label = (array.transpose(1, 2, 0).copy() for array in (pred_of(label), label))
    batch = {"case": "a", "group": "g", "split": "test", "mode": "normal", **names}
    output = {"pred": logits(pred[None]), "label": torch.from_numpy(label)[None, None]}
    return {key: [name] for key, name in batch.items()} | {
        "spacing_mm": torch.tensor([SPACING])
    }, output


@pytest.fixture
def scored(tmp_path, measured):
    """Score items and read the table."""

    def score(items, pairs=None, measure=None):
        measure = measure or VolumeScores(REGIONS)
        pairs = batched(items) if pairs is None else pairs
        return read_volumes(measured(measure, tmp_path / "volumes.csv", pairs, items))

    return score


def test_every_volume_mode_and_region_has_the_scores_of_its_stack(scored):
    volumes = {"a": label_of(0), "b": label_of(2, planes=7)}
    table = scored(slices(volumes, ("normal", "ones")))
    assert table.columns.tolist() == list(VOLUMES.columns)
    assert table[["volume", "mode", "region"]].to_numpy().tolist() == [
        [name, mode, region]
        for mode in ("normal", "ones")
        for name in volumes
        for region in REGIONS
    ]
    assert set(table["group"]) == {"patient a", "patient b"}
    scores = [
        score
        for mode in ("normal", "ones")
        for label in volumes.values()
        for score in expected(label, pred_of(label, mode))
    ]
    assert table[list(scores[0]._fields)].to_numpy().tolist() == [list(score) for score in scores]
    assert (table["complete"] == 1).all()


def test_batches_cross_volumes_and_the_order_of_slices_does_not_matter(scored):
    items = slices({"a": label_of(0), "b": label_of(2, planes=7)}, ("normal", "ones"))
    mixed = [items[place] for place in np.random.default_rng(0).permutation(len(items))]
    one, two = (
        table.sort_values(["mode", "volume", "region"]).reset_index(drop=True)
        for table in (scored(items), scored(mixed, batched(mixed, size=5)))
    )
    assert one.equals(two)


def test_a_volume_is_forgotten_as_soon_as_it_is_scored(scored):
    held = []

    class Watched(VolumeScores):
        def __call__(self, case):
            rows = super().__call__(case)
            held.append(sum(len(stack.planes) for stack in self.open.values()))
            return rows

    scored(slices({name: label_of(0) for name in "abcd"}), measure=Watched(REGIONS))
    assert held == [1, 2, 3, 4, 0] * 4


def test_planes_of_a_slice_rule_are_scored_at_their_place(scored):
    label = label_of(0, planes=9)
    label[6:8, 3:6, 3:6] = 2
    keep = [1, 2, 3, 6, 7]
    table = scored(slices({"a": label}, keep=keep))
    assert table[["complete", "planes", "lesions"]].to_numpy().tolist() == [[0, 5, 3], [0, 5, 2]]
    scores = expected(label[keep], pred_of(label)[keep], at=keep, count=9)
    assert table["surface_dice"].tolist() == [score.surface_dice for score in scores]


def test_undefined_distances_are_empty_cells(tmp_path, scored):
    table = scored(slices({"a": np.minimum(label_of(0), 1)}))
    line = (tmp_path / "volumes.csv").read_text().splitlines()[1]
    assert line == "a,patient a,test,normal,masses,1,5,1.0,1.0,,0.0,0.0,0.0,0,0,0"
    assert table["hd95_mm"].isna().all()
    assert table["hd95_mm"].dtype == float


def test_an_evaluation_that_is_cut_short_is_incomplete_and_the_next_starts_anew(scored):
    items, measure = slices({"a": label_of(0)}), VolumeScores(REGIONS)
    table = scored(items, batched(items, size=2)[:2], measure)
    assert table[["complete", "planes"]].to_numpy().tolist() == [[0, 4]] * 2
    with pytest.raises(DataError, match="came twice"):
        scored(items, batched([*items[:3], items[2]], size=1), measure)
    assert scored(items, measure=measure)["complete"].tolist() == [1, 1]


def test_planes_of_a_loader_that_does_not_tell_how_many_come_are_scored_at_the_end(scored):
    table = scored([], batched(slices({"a": label_of(0)})))
    assert table[["complete", "planes"]].to_numpy().tolist() == [[1, 5]] * 2


@pytest.mark.parametrize(("names", "called"), [({}, "a"), ({"volume": "scan 7"}, "scan 7")])
def test_whole_volumes_of_3d_networks_have_their_planes_last(scored, names, called):
    label = label_of(0)
    table = scored([{"case": "a", "mode": "normal"}], [whole(label, **names)])
    assert table[["volume", "complete", "planes"]].to_numpy().tolist() == [[called, 1, 5]] * 2
    scores = expected(label)
    assert table["surface_dice"].tolist() == [score.surface_dice for score in scores]
    assert table["hd95_mm"].tolist() == [score.hd95_mm for score in scores]


@pytest.mark.parametrize("key", ["volume", "plane", "planes", "spacing_mm"])
def test_slices_without_their_place_are_refused(scored, key):
    items = slices({"a": label_of(0)})
    with pytest.raises(ConfigError, match=f"have no {key}. The table needs"):
        scored(items, batched(items, drop=[key]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": 1}, r"volume a \(mode normal\), plane 1: came twice"),
        (
            {"label": np.zeros((1, 11, 10), np.uint8), "pred": np.zeros((11, 10), np.uint8)},
            r"plane 3: .*\(11, 10\).*\(12, 10\)",
        ),
        ({"spacing_mm": (4.0, 0.5, 0.501)}, "plane 3: spacing"),
        ({"plane": 8}, r"volume a \(mode normal\): planes 0 to 8 of a"),
        ({"spacing_mm": (4.0, 0.5, 0.5001)}, None),  # rounded
    ],
)
def test_planes_that_do_not_belong_together_are_refused(tmp_path, scored, change, message):
    items = slices({"a": label_of(0)})
    items[3].update(change)
    if message is None:
        assert len(scored(items, batched(items, 1))) == 2
        return
    with pytest.raises(DataError, match=message):
        scored(items, batched(items, 1))
    assert not (tmp_path / "volumes.csv").exists()


def test_wrong_settings_are_refused_before_the_evaluation():
    with pytest.raises(ConfigError, match=r"regions is 30; expected .*null to score no volumes"):
        VolumeScores(30)
    for off in (None, {}):
        assert VolumeScores(off)({"mode": "normal"}) == []
