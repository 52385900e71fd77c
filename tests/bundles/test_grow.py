"""A trained model grows by a value: it keeps its masks, and learns the new value by training."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from metaseg_monai.bundle.overrides import read_back
from metaseg_monai.bundle.run import read_workflow
from metaseg_monai.bundle.trust import was_trained_here
from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.images import read_image
from metaseg_monai.sharing import run
from metaseg_monai.sharing.grow import grow
from metaseg_monai.training import read_weights

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


@pytest.fixture(scope="module")
def model(copy_bundle, tmp_path_factory):
    """A bundle, a model of discs and rings, and a table with a third task: both."""
    bundle = copy_bundle("synthetic_shapes_segmentation")
    folder = tmp_path_factory.mktemp("runs") / "model"
    small = {"network_def#channels": 8, "network_def#levels": 2}
    run.train(bundle.root, output_dir=folder, variant="me", **small, **bundle.settings)
    table = tmp_path_factory.mktemp("more") / "data"
    shutil.copytree(bundle.root / "data", table)
    rows = pd.read_csv(table / "table.csv", dtype=str)
    rows.loc[rows.index[::3], "task"] = "new $task"
    known = rows["image"].unique()[::2]  # the others are of the first training alone
    rows = rows[(rows["split"] != "train") | rows["image"].isin(known)]
    rows.to_csv(table / "table.csv", index=False)
    return bundle, folder, table


def logits(bundle, folder, rows, *more):
    """What a model's network, made from its bundle and files, gives for metadata."""
    files = [bundle.root / "configs/inference.json", *more]
    small = {} if more else {"network_def#channels": 8, "network_def#levels": 2}
    settings = {"ckpt_path": str(folder / "model.pt"), "variant": "me", **small}
    parser = read_workflow(bundle.root, files, settings).parser
    weights = parser.get_parsed_content("weights")
    weights.load()
    network = weights.network.eval()
    meta = torch.stack([torch.from_numpy(weights.schema.encode(row)) for row in rows])
    image = torch.rand(len(rows), 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(image, meta)


def masks(folder, images, output, **given):
    found = run.predict(folder, images, output, **given).masks
    return {path.name: read_image(path).array for path in found}


def test_masks_stay_and_the_new_value_is_learned(model, tmp_path):
    bundle, folder, table = model
    made = grow(folder, "task", tmp_path / "grown", value="new $task")
    assert made.entries == ("task=new $task",)
    state, facts = read_weights(tmp_path / "grown" / "model.pt")
    assert facts["grown"]["from"] == read_weights(folder / "model.pt")[1]["weights_sha256"]
    assert any(name.endswith("reduce.new.weight") for name in state)
    images = bundle.root / "data/images"
    rows = [{"task": "disc"}, {"task": "ring"}, {"task": "unknown"}, {"task": "disc:0.5|ring:0.5"}]
    was = logits(bundle, folder, rows)
    assert not torch.equal(was[0], was[1])
    grown = logits(bundle, tmp_path / "grown", rows, tmp_path / "grown" / "grown.json")
    assert torch.equal(grown, was)
    for task in ("disc", "ring", "unknown"):
        were = masks(folder, images, tmp_path / f"{task}_old", meta={"task": task})
        are = masks(tmp_path / "grown", images, tmp_path / f"{task}_new", meta={"task": task})
        for name, mask in were.items():
            np.testing.assert_array_equal(are[name], mask)
    masks(tmp_path / "grown", images, tmp_path / "fresh", meta={"task": "new $task"})
    run.evaluate(tmp_path / "grown", modes=["normal"], dataset_dir=str(table))
    assert not (tmp_path / "grown" / "previous").exists()  # its own files are no evaluation
    known, fresh = {}, {}
    for tune in ("new", "gates", "all"):
        out = tmp_path / tune
        done = run.train(
            bundle.root,
            output_dir=out,
            configuration=str(tmp_path / "grown" / "grown.json"),
            dataset_dir=str(table),
            epochs=3,
            **{"start_from#tune": tune},
        )
        assert done.log["new_f1"].notna().all()
        assert tune != "new" or done.log["old_f1"].nunique() == 1
        known[tune] = read_weights(out / "model.pt")
        first, seen = (pd.read_csv(one / "trained_on.csv") for one in (folder, out))
        assert set(map(tuple, first.values)) <= set(map(tuple, seen.values))
        assert len(seen) == known[tune][1]["trained_on"]["images"]
        assert len(seen) > pd.read_csv(table / "table.csv").query("split != 'test'").image.nunique()
        changed = {name for name in state if not torch.equal(state[name], known[tune][0][name])}
        fresh[tune] = changed
        tested = run.evaluate(out, modes=["normal"])
        assert set(tested.counts["domain"]) >= {"new $task"}
        masks(out, images, tmp_path / f"{tune}_masks", meta={"task": "new $task"})
    assert all(".new." in name for name in fresh["new"])
    assert fresh["new"]
    assert all("gate." in name for name in fresh["gates"])
    assert any("convolutions" in name for name in fresh["all"])
    # trained by its new weights alone, every bit of the old domains is kept
    assert torch.equal(
        logits(bundle, tmp_path / "new", rows, tmp_path / "grown" / "grown.json"), was
    )
    for task in ("disc", "ring"):
        were = masks(folder, images, tmp_path / f"{task}_old", meta={"task": task})
        are = masks(tmp_path / "new", images, tmp_path / f"{task}_tuned", meta={"task": task})
        for name, mask in were.items():
            np.testing.assert_array_equal(are[name], mask)


def test_what_is_made_of_a_model_from_elsewhere_was_not_trained_here(model, tmp_path):
    _, folder, _ = model
    copy = shutil.copytree(folder, tmp_path / "copy")
    for source, here in ((folder, True), (copy, False)):
        output = tmp_path / f"grown_{here}"
        grow(source, "task", output, value="bean")
        assert was_trained_here(source) == was_trained_here(output) == here


def test_a_model_grows_by_a_field_and_again(model, tmp_path):
    bundle, folder, _ = model
    grow(folder, "stain", tmp_path / "one", values="none,DAPI", old="none")
    grow(tmp_path / "one", "stain", tmp_path / "two", value="actin")
    schema = json.loads((tmp_path / "two" / "grown_schema.json").read_text())
    assert schema["fields"][1]["values"] == ["none", "DAPI", "actin"]
    images = bundle.root / "data/images"
    were = masks(folder, images, tmp_path / "were", meta="task=disc")
    are = masks(tmp_path / "two", images, tmp_path / "are", meta="task=disc,stain=none")
    for name, mask in were.items():
        np.testing.assert_array_equal(are[name], mask)


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("task", {"value": "disc"}, "has 'disc' already"),
        ("task", {}, "no new value"),
        ("task", {"value": "bean", "old": "disc"}, "--old is for a new field"),
        ("stain", {"value": "DAPI"}, "no field of the model.*--values A,B --old A"),
        ("stain", {"values": ["a", "b"], "old": "c"}, "--values A,B --old A"),
        ("task", {"value": "unknown"}, "stands for a missing value"),
    ],
)
def test_what_cannot_be_grown_by_is_refused(model, tmp_path, field, given, message):
    _, folder, _ = model
    with pytest.raises(MetadataError, match=message):
        grow(folder, field, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_only_models_grow(model, tmp_path):
    bundle, _, _ = model
    with pytest.raises(ConfigError, match="is no folder of a trained model"):
        grow(bundle.root, "task", tmp_path / "out", value="bean")


def test_a_grown_model_is_evaluated_in_the_modes_of_its_bundle(model, tmp_path):
    _, folder, _ = model
    made = grow(folder, "task", tmp_path / "one", value="new $task")
    grow(made.folder, "task", tmp_path / "two", value="bean")
    for grown in (made.folder, tmp_path / "two"):
        scores = run.evaluate(grown, modes="normal,shuffle,fixed:*").scores
        assert "shuffle" in scores.index
    shuffle = json.loads((tmp_path / "two" / "grown.json").read_text())["shuffle"]
    assert {name: label for name, label in read_back(shuffle)["task"].items() if " " in name} == {
        "new $task": "triangle"
    }
