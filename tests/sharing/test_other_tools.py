"""MONAI Label, MONAI Deploy, NVFLARE's client: our bundles under the calls that these tools make.

`Label` and `Deploy` stand in for the tools: their methods make the calls of MONAI Label 0.8.5
(monailabel/tasks/infer/bundle.py, infer/basic_infer.py, train/bundle.py) and of MONAI Deploy App
SDK 4.0.0 (monai_bundle_inference_operator.py), in the same order, with the same arguments. Where
monailabel itself is installed, its own classes run as well.
"""

import copy
import json
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.data import MetaTensor, partition_dataset
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from monai.transforms import Resize
from monai.utils import convert_to_dst_type, ensure_tuple

from metaseg_monai.errors import ConfigError, MetadataError, root_refusal
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.simulate.phantoms import generate_phantoms
from metaseg_monai.training import read_weights
from tests.extras import needed

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SHAPES, KITS = "synthetic_shapes_segmentation", "kits21_tumour_slices_segmentation"

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1, Ignite 0.5.5 and monailabel themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::SyntaxWarning",
    "ignore::UserWarning",
)


class Label:
    """The calls of MONAI Label's BundleInferTask and BundleTrainTask."""

    def __init__(self, path):
        self.path = path
        self.config = ConfigParser()
        self.config.read_config(str(path / "configs/inference.json"))
        self.config.config.update({"bundle_root": str(path)})
        self.network = None
        if (path / "models/model.pt").is_file():
            self.network = self.config.get_parsed_content("network_def", instantiate=True)
        metadata = json.loads((path / "configs/metadata.json").read_text())["network_data_format"]
        self.image, self.pred = next(iter(metadata["inputs"])), next(iter(metadata["outputs"]))
        self.shown = self.config.get_parsed_content("displayable_configs", instantiate=True)

    def _device(self, data):
        self.config.config.update({"device": data["device"]})
        if self.config.ref_resolver.items.get("device"):
            item = ConfigItem(config=data["device"], id="device")
            self.config.ref_resolver.items["device"] = item

    def infer(self, **request):
        """BasicInferTask.__call__, up to the writer."""
        data = copy.deepcopy({"device": "cpu", **self.shown, **request})
        self.config["displayable_configs"].update({c: data[c] for c in self.shown})
        self.config.parse()
        self._device(data)
        for step in self.config.get_parsed_content("preprocessing", instantiate=True):
            data = step(data)
        self._device(data)
        inferer = self.config.get_parsed_content("inferer", instantiate=True)
        network = copy.deepcopy(self.network).to(torch.device("cpu"))
        checkpoint = torch.load(self.path / "models/model.pt", map_location=torch.device("cpu"))
        network.load_state_dict(checkpoint.get("model", checkpoint), strict=False)
        network.eval()
        inputs = data[self.image]
        inputs = inputs if torch.is_tensor(inputs) else torch.from_numpy(inputs)
        with torch.no_grad():
            outputs = inferer(inputs[None].to(torch.device("cpu")), network)
        data[self.pred] = outputs[0]
        self._device(data)
        for step in self.config.get_parsed_content("postprocessing", instantiate=True):
            data = step(data)
        return self._restored(data), data.get("result", {})

    def _restored(self, data):
        """Restored of monailabel/transform/post.py."""
        result, meta = data[self.pred], data[self.image].meta
        size = result.shape[1:]
        wanted = meta.get("spatial_shape", size)[-len(size) :]
        if np.any(np.not_equal(size, wanted)):
            result = Resize(spatial_size=wanted, mode="nearest")(result)
        result = result if result.ndim <= 3 else result[0] if result.shape[0] == 1 else result
        return np.asarray(result), meta.get("original_affine")

    def train(self, datalist, max_epochs, val_split):
        """BundleTrainTask.__call__ and run_single_gpu."""
        config, file = ConfigParser(), str(self.path / "configs/train.json")
        config.read_config(file)
        config.config.update({"bundle_root": str(self.path)})
        handlers = config.get("train#handlers", [])
        train, val = partition_dataset(datalist, ratios=[1 - val_split, val_split], shuffle=False)
        pretrained = self.path / "models/model.pt"
        if pretrained.exists():
            loader = {"_target_": "CheckpointLoader", "load_path": str(pretrained)}
            loader |= {"load_dict": {"model": "$@network"}, "strict": False}
            handlers.insert(0, loader)
        overrides = {
            "bundle_root": str(self.path),
            "train#trainer#max_epochs": max_epochs,
            "train#dataset#data": train,
            "device": "cpu",
            "train#handlers": handlers,
            "validate#dataset#data": val,
        }
        monai.bundle.run(
            run_id="run",
            init_id=None,
            final_id=None,
            meta_file=str(self.path / "configs/metadata.json"),
            config_file=file,
            **overrides,
        )


class RealLabel(Label):
    """MONAI Label's own classes."""

    def infer(self, **request):
        tasks = needed("monailabel.tasks.infer.bundle")
        task = tasks.BundleInferTask(str(self.path), {"preload": "false"})
        assert task.is_valid()
        file, result = task({"device": "cpu", "model": self.path.name, **request})
        if str(file).endswith(".nii.gz"):
            return (np.asarray(nib.load(file).dataobj), nib.load(file).affine), result
        return (tifffile.imread(file), None), result

    def train(self, datalist, max_epochs, val_split):
        tasks = needed("monailabel.tasks.train.bundle")

        class Store:
            def datalist(self, full_path=True):
                return datalist

        asked = {"max_epochs": max_epochs, "val_split": val_split, "multi_gpu": False}
        request = {"model": self.path.name, "device": "cpu", "run_id": "run", **asked}
        tasks.BundleTrainTask(str(self.path), {})(request, Store())


TOOLS = [Label, pytest.param(RealLabel, id="monailabel")]


def small(root, name, **changes):
    """A copy of a bundle whose network and windows are tiny."""
    shutil.copytree(BUNDLES / name, root, ignore=shutil.ignore_patterns("data", "models"))
    for stage in ("train", "inference"):
        file = root / "configs" / f"{stage}.json"
        config = ConfigParser(json.loads(file.read_text()))
        shrunk = {"network_def#channels": 4, "network_def#levels": 2, "roi_size": [32, 32]}
        shrunk["batch_size"] = 2
        for key, value in {**shrunk, **changes}.items():
            if key.partition("#")[0] in config.config:
                config.set(value, key)
        file.write_text(json.dumps(config.config))
    return root


@pytest.fixture
def shapes(tmp_path):
    """The bundle of shapes, and images with labels as a datastore of MONAI Label has them."""
    root = small(tmp_path / SHAPES, SHAPES, **{"train#augmentation": []})
    store = tmp_path / "store"
    (store / "labels/final").mkdir(parents=True)
    rows = []
    for number in range(8):
        random = np.random.default_rng(number)
        image = (255 * (random.random((32, 32)) > 0.8)).astype(np.uint8)
        image[8:20, 8:20] = 255
        label = np.zeros((32, 32), np.uint8)
        label[8:20, 8:20] = 1
        paths = [store / f"{number}.tif", store / "labels/final" / f"{number}.tif"]
        for path, array in zip(paths, (image, label), strict=True):
            tifffile.imwrite(path, array)
        rows.append({"image": str(paths[0]), "label": str(paths[1])})
    return root, rows


@pytest.fixture
def kits(tmp_path):
    """The CT bundle, and volumes with labels as a datastore of MONAI Label has them."""
    root = small(tmp_path / KITS, KITS, **{"preprocessing#1#spacing_mm": 14.0})
    source = generate_phantoms(tmp_path / "phantoms", cases=3, matrix=32)
    rows = []
    for case in sorted(source.glob("case_*")):
        image, label = tmp_path / f"{case.name}.nii.gz", tmp_path / f"labels/{case.name}.nii.gz"
        label.parent.mkdir(exist_ok=True)
        shutil.copy(case / "imaging.nii.gz", image)
        shutil.copy(case / "aggregated_MAJ_seg.nii.gz", label)
        rows.append({"image": str(image), "label": str(label)})
    (tmp_path / "license.json").write_text('{"data": "generated"}')
    return root, rows


@pytest.mark.parametrize("tool", TOOLS)
def test_monai_label_trains_on_its_images_and_infers_with_metadata(shapes, tool):
    root, rows = shapes
    label = tool(root)
    label.train(rows, max_epochs=2, val_split=0.25)
    assert not (root / "data").exists()  # nothing is generated beside its images
    record = pd.read_csv(root / "models/trained_on.csv", dtype=str)
    assert list(record["split"]) == ["train"] * 6 + ["val"] * 2
    assert list(record["case"]) == [str(number) for number in range(8)]  # no path of a machine
    facts = read_weights(root / "models/model.pt")[1]
    assert "data" not in facts  # nobody says under which licence these are
    assert len(pd.read_csv(root / "models/log.csv")) == 2
    label = tool(root)
    image = rows[0]["image"]
    (unknown, _), told = label.infer(image=image)
    assert told["metadata"] == {"task": "unknown"}
    (given, _), told = label.infer(image=image, task="disc")
    assert told["metadata"] == {"task": "disc"}
    assert np.squeeze(unknown).shape == np.squeeze(given).shape == (32, 32)
    with pytest.raises(MetadataError, match="use one of these names"):
        label.infer(image=image, task="disk")
    label.train(rows[:4], max_epochs=1, val_split=0.25)  # "pretrained": goes on from these weights
    after = read_weights(root / "models/model.pt")[1]
    assert after["trained_on"]["images"] == 8 + 1  # one of the others chose weights now
    assert after["data"] == [{"data": "not named", "license": None}]


@pytest.mark.slow  # the test of MONAI Deploy below does as much without monailabel
@pytest.mark.parametrize("tool", TOOLS)
def test_monai_label_trains_a_network_of_planes_on_volumes(kits, tool):
    root, rows = kits
    tool(root).train(rows, max_epochs=1, val_split=0.4)
    facts = read_weights(root / "models/model.pt")[1]
    assert facts["data"] == [{"data": "generated", "license": "apache-2.0"}]
    label = tool(root)
    stored = nib.load(rows[0]["image"])
    for size in ("unknown", "41"):
        (mask, affine), told = label.infer(image=rows[0]["image"], tumour_size_mm=size)
        assert told["metadata"] == {"tumour_size_mm": size}
        assert mask.shape == stored.shape
        np.testing.assert_allclose(affine, stored.affine, atol=1e-4)


@pytest.fixture
def trained(shapes):
    """The bundle of shapes with weights that show which metadata they are given."""
    root, rows = shapes
    Label(root).train(rows, max_epochs=1, val_split=0.25)
    return root, rows[0]["image"]


def spied(tool, root, image, **given):
    """The vectors that the network was given for an image."""
    seen = []
    label = tool(root)
    label.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[1] if len(args) > 1 else kwargs.get("meta")),
        with_kwargs=True,
    )
    label.infer(image=image, **given)
    return seen


@pytest.mark.parametrize(
    ("given", "entry"), [({}, "task=unknown"), ({"task": "cross"}, "task=cross")]
)
def test_the_network_is_told_what_the_panel_says(trained, given, entry):
    root, image = trained
    schema = MetadataSchema.load(root / "configs/schema.json")
    (meta,) = spied(Label, root, image, **given)
    expected = [float(name == entry) for name in schema.entry_names]
    assert meta.tolist() == [expected]


class Deploy:
    """The calls of MONAI Deploy's MonaiBundleInferenceOperator on a folder, made in `compute`."""

    def __init__(self, bundle_path):
        self.bundle_path = Path(bundle_path)
        self._init_config(["inference"])

    def _init_config(self, config_names):
        parser = ConfigParser()
        folder = self.bundle_path / "configs"
        parser.read_meta(f=json.loads((folder / "metadata.json").read_text()))
        parser.read_config([folder / f"{name}.json" for name in config_names])
        parser.parse()
        self._parser = parser
        meta = self._parser["_meta_"]
        self._device = parser.get_parsed_content("device")
        self._inferer = parser.get_parsed_content("inferer")
        self._inputs = meta["network_data_format"]["inputs"]
        self._outputs = meta["network_data_format"]["outputs"]
        self._preproc = self._get_compose("composed#preprocessing")
        self._postproc = self._get_compose("composed#postprocessing")

    def _get_compose(self, name):
        compose = self._parser.get_parsed_content(name)
        kept = [one for one in compose.transforms if "LoadImage" not in type(one).__name__]
        compose.transforms = tuple(kept)
        return compose

    def compute(self, received):
        network = self._parser.get_parsed_content("network")
        network.load_state_dict(
            torch.load(self.bundle_path / "models/model.pt", map_location=self._device), strict=True
        )
        self._model_network = network.eval()
        first_name, *other_names = list(self._inputs)
        with torch.no_grad():
            inputs = {}
            for name in self._inputs:
                value, meta = received[name]
                value = convert_to_dst_type(value, dst=value)[0]
                inputs[name] = MetaTensor.ensure_torch_and_prune_meta(value, meta)
            inputs = self._preproc(inputs)
            first = inputs[first_name]
            data = inputs.pop(first_name)[None].to(self._device)
            other = {k: v[None] for k, v in inputs.items() if isinstance(v, torch.Tensor)}
            other.update(
                {k: inputs[k] for k in other_names if not isinstance(inputs[k], torch.Tensor)}
            )
            outputs = self._inferer(inputs=data, network=self._model_network, **other)
            inputs[first_name] = first
            found = {next(iter(self._outputs)): ensure_tuple(outputs)[0], **inputs}
            return self._postproc(found)


def test_monai_deploy_takes_the_vector_that_metadata_json_names(kits):
    """A DICOM series comes as (W, H, D) without a channel, as its operator converts it."""
    root, rows = kits
    Label(root).train(rows, max_epochs=1, val_split=0.4)
    schema = MetadataSchema.load(root / "configs/schema.json")
    stored = nib.load(rows[0]["image"])
    voxels = np.asarray(stored.dataobj).astype(np.float32)
    known = {"affine": stored.affine, "original_affine": stored.affine}
    known |= {"spatial_shape": np.asarray(voxels.shape), "original_channel_dim": "no_channel"}
    operator = Deploy(root)
    for size in (None, 41.0):
        meta = torch.from_numpy(schema.encode({"tumour_size_mm": size}))
        made = operator.compute({"image": (voxels, known), "meta": (meta, {})})
        assert made["pred"].shape == (1, *stored.shape)
        asked = "unknown" if size is None else str(size)
        (expected, _), _ = Label(root).infer(image=rows[0]["image"], tumour_size_mm=asked)
        np.testing.assert_array_equal(made["pred"][0], expected)
    with pytest.raises(RuntimeError) as refused:
        operator.compute({"image": (voxels, known), "meta": (meta + 7, {})})
    assert isinstance(root_refusal(refused.value), MetadataError)


def test_two_rounds_of_federated_learning_with_two_clients(shapes, tiny, tmp_path):
    """MonaiAlgo is what NVFLARE's executor calls: initialize, train, get_weights, evaluate."""
    root, _ = shapes
    clients = []
    for name in ("one", "two"):
        seed = {"one": 0, "two": 1}[name]
        own = {"table#path": {**tiny["table#path"], "seed": seed}}
        own |= {"dataset_dir": str(tmp_path / name), "output_dir": str(tmp_path / f"{name}_out")}
        algo = MonaiAlgo(str(root), 1, send_weight_diff=False, train_kwargs=own, eval_kwargs=own)
        algo.initialize()
        clients.append(algo)
    weights = {k: v.cpu().clone() for k, v in clients[0].trainer.network.state_dict().items()}
    scores = []
    for _ in range(2):
        made = []
        for algo in clients:
            scores.append(algo.evaluate(ExchangeObject(weights=weights)).metrics["val_mean_dice"])
            algo.train(ExchangeObject(weights=weights))
            made.append(algo.get_weights())
        assert all(one.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] > 0 for one in made)
        news = [one.weights for one in made]
        assert any(not torch.equal(news[0][k], news[1][k]) for k in weights)  # other images
        weights = {k: torch.stack([one[k].float() for one in news]).mean(0) for k in weights}
    assert len(scores) == 4
    assert all(0 <= score <= 1 for score in scores)
    for algo in clients:
        algo.finalize()


def test_an_image_without_its_label_is_told_before_anything_is_trained(shapes):
    root, rows = shapes
    Path(rows[3]["label"]).unlink()
    with pytest.raises((ConfigError, RuntimeError)):
        Label(root).train(rows, max_epochs=1, val_split=0.25)
    assert not (root / "models/model.pt").exists()
