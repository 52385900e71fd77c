"""Scales of labels that are images: recorded with weights, and answers in the values of files."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Compose
from torch import nn

from metaseg_monai.errors import CheckpointError, ConfigError, DataError
from metaseg_monai.inferers import EnsembleInferer
from metaseg_monai.training import BestWeights, LoadWeights
from metaseg_monai.training.trained_on import RecordTrained
from metaseg_monai.training.weights import write_weights
from metaseg_monai.transforms import AsImaged, IntensityStatistics, ScaleIntensityBy

BY = "magnification/channel"
STATISTICS = IntensityStatistics(
    BY, (0.0, 100.0), {"20/nuclei": [[100, 300]], "20/lipids": [[0, 1000]]}
)


def scaling(statistics=STATISTICS, **settings):
    return ScaleIntensityBy(BY, (0, 100), statistics, "label", **settings)


def item(channel, label, **more):
    columns = {"magnification": "20", "channel": channel}
    return {"case": "a", "label": torch.tensor(label), "columns": columns, **more}


def test_an_answer_comes_back_in_the_values_of_files():
    label = [[[100.0, 150.0, 300.0]]]
    scaled = scaling()(item("nuclei", label))["label"]
    torch.testing.assert_close(scaled, torch.tensor([[[0.0, 0.25, 1.0]]]))
    done = AsImaged(scaling())({**item("nuclei", label), "pred": scaled})["pred"]
    assert (done.dtype, done.flatten().tolist()) == (torch.uint16, [100, 150, 300])
    beyond = {**item("nuclei", label), "pred": torch.tensor([[[-9.0, 0.0026, 999.0]]])}
    assert AsImaged(scaling())(beyond)["pred"].flatten().tolist() == [0, 101, 65535]
    cut = AsImaged(scaling(), clip=True)(beyond)["pred"]
    assert cut.flatten().tolist() == [100, 101, 300]  # the range of the training's labels
    with pytest.raises(ConfigError, match="clip without a scaling"):
        AsImaged(clip=True)
    floats = AsImaged(scaling(), kind="float32")(beyond)["pred"]
    assert floats.flatten().tolist() == pytest.approx([-1700, 100.52, 199900])


def test_joined_channels_have_a_scale_each_in_their_order():
    done = scaling()(item("lipids;nuclei", [[[500.0]], [[150.0]]]))["label"]
    assert done.flatten().tolist() == [0.5, 0.25]
    with pytest.raises(DataError, match=r"no intensity statistics of .* '20/cytoplasm'"):
        scaling()(item("lipids;cytoplasm", [[[5.0]], [[1.0]]]))
    with pytest.raises(DataError, match="1 channels, but the statistics"):
        scaling()(item("lipids;nuclei", [[[5.0]]]))


def test_what_an_item_does_not_say_is_taken_from_its_metadata_or_the_default():
    own = scaling(default={"channel": "nuclei"})
    bare = {"case": "a", "columns": {}, "metadata": {"magnification": 20.0}}
    assert own.back(bare, torch.tensor([[[0.5]]])).item() == 200
    said = {**bare, "columns": {"channel": "lipids"}}
    assert own.back(said, torch.tensor([[[0.5]]])).item() == 500
    with pytest.raises(DataError, match="no value in the column 'channel'"):
        scaling().back(bare, torch.tensor([[[0.5]]]))


def test_wrong_settings():
    with pytest.raises(ConfigError, match="kind='int8'"):
        AsImaged(kind="int8")
    with pytest.raises(ConfigError, match="yet to be predicted has no percentiles"):
        ScaleIntensityBy("image", (0, 100)).back({"case": "a"}, torch.zeros(1, 2, 2))


def recorded(tmp_path, *steps, channels=("nuclei", "lipids")):
    """Weights as a training with these steps keeps them, its network, and its facts."""
    tifffile.imwrite(tmp_path / "a.tif", np.arange(64, dtype=np.uint16).reshape(8, 8))
    told = {"image": str(tmp_path / "a.tif"), "split": "train", "group": "w", "metadata": {}}
    items = [{**item(one, [[[1.0]]]), **told} for one in channels]
    network = nn.Conv2d(1, 1, 1)
    step = {"_target_": "metaseg_monai.transforms.ScaleIntensityBy", "by": BY}
    facts = {"preprocessing": [{**step, "percentiles": [0, 100], "statistics": "/data/a.json"}]}
    weights = BestWeights(tmp_path / "model.pt", network, facts=facts)
    dataset = SimpleNamespace(data=(), transform=Compose(steps))
    RecordTrained(weights, items, dataset)(
        SimpleNamespace(network=network, state=SimpleNamespace(iteration=1))
    )
    write_weights(tmp_path / "model.pt", network, weights.facts)
    return network, facts


def test_weights_tell_the_scales_of_their_training_wherever_its_files_were(tmp_path):
    network, facts = recorded(tmp_path, scaling())
    later = ScaleIntensityBy(BY, (0, 100), "trained", "label")
    with pytest.raises(DataError, match="the weights do not tell how the training scaled its lab"):
        later.back(item("nuclei", [[[1.0]]]), torch.tensor([[[0.5]]]))
    facts["preprocessing"][0]["statistics"] = "trained"
    LoadWeights(tmp_path / "model.pt", network, facts=facts, preprocessing=[later]).load()
    assert later.back(item("nuclei", [[[1.0]]]), torch.tensor([[[0.5]]])).item() == 200
    with pytest.raises(DataError, match="The weights know no others; train on such images, too"):
        later.back(item("cytoplasm", [[[1.0]]]), torch.tensor([[[0.5]]]))


def test_labels_of_a_group_that_was_not_trained_on_are_not_predicted(tmp_path):
    network, facts = recorded(tmp_path, scaling(), channels=("nuclei",))
    facts["preprocessing"][0]["statistics"] = "trained"
    later = ScaleIntensityBy(BY, (0, 100), "trained", "label")
    LoadWeights(tmp_path / "model.pt", network, facts=facts, preprocessing=[later]).load()
    assert later.back(item("nuclei", [[[1.0]]]), torch.tensor([[[0.5]]])).item() == 200
    with pytest.raises(DataError, match="'20/lipids'; those at hand are of 20/nuclei"):
        later.back(item("lipids", [[[1.0]]]), torch.tensor([[[0.5]]]))
    known = scaling().learned([item("nuclei", [[[1.0]]])], earlier=["20/lipids"])
    assert list(known.ranges) == ["20/nuclei", "20/lipids"]  # of a training that goes on
    joined = scaling().learned([item("lipids;nuclei", [[[1.0]]])])
    assert list(joined.ranges) == ["20/nuclei", "20/lipids"]


def test_models_that_scaled_otherwise_make_no_ensemble(tmp_path):
    brighter = IntensityStatistics(BY, (0.0, 100.0), {"20/nuclei": [[100, 900]]})
    folders = [tmp_path / name for name in ("one", "same", "other")]
    for folder, seed, step in zip(folders, range(3), (None, None, brighter), strict=True):
        folder.mkdir()
        torch.manual_seed(seed)
        used = scaling() if step is None else scaling(step)
        network, facts = recorded(folder, used, channels=("nuclei", "lipids")[: 1 + (seed < 1)])
    facts["preprocessing"][0]["statistics"] = "trained"
    later = ScaleIntensityBy(BY, (0, 100), "trained", "label")

    def together(other):
        inferer = EnsembleInferer(SimpleInferer(), average="values")
        given = {"facts": facts, "preprocessing": [later], "ensemble": inferer}
        LoadWeights(folders[0] / "model.pt", network, members=[other / "model.pt"], **given).load()

    together(folders[1])
    assert later.back(item("nuclei", [[[1.0]]]), torch.tensor([[[0.5]]])).item() == 200
    with pytest.raises(DataError, match="'20/lipids'; those at hand are of 20/nuclei"):
        later.back(item("lipids", [[[1.0]]]), torch.tensor([[[0.5]]]))  # one does not know it
    with pytest.raises(CheckpointError, match=r"other/model\.pt scaled its labels otherwise than"):
        together(folders[2])


def test_weights_without_scales_leave_it_to_be_told(tmp_path):
    network, facts = recorded(tmp_path)
    later = ScaleIntensityBy(BY, (0, 100), "trained", "label")
    LoadWeights(tmp_path / "model.pt", network, facts=facts, preprocessing=[later]).load()
    with pytest.raises(DataError, match="train anew, or give the statistics"):
        later.back(item("nuclei", [[[1.0]]]), torch.tensor([[[0.5]]]))
