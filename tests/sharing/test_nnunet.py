"""nnU-Net's networks steered by metadata: what needs no nnU-Net, and a slow run of the real one."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.files import file_sha256
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.sharing import nnunet
from metaseg_monai.training.processes import end_processes

WHEN = {"provenance": "acquisition", "availability": "acquisition"}


class PlainConvUNet(nn.Module):
    """As nnU-Net's: stages of an encoder, which the decoder holds too, and of a decoder."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.stages = nn.ModuleList([self.block(1, 4), self.block(4, 8)])
        self.decoder.encoder = self.encoder
        self.decoder.stages = nn.ModuleList([self.block(12, 4)])
        self.decoder.last = nn.Conv2d(4, 2, 1)
        self.decoder.deep_supervision = False

    @staticmethod
    def block(inputs, outputs):
        layers = nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs, affine=True)
        return nn.Sequential(*layers, nn.LeakyReLU())

    def forward(self, x):
        first = self.encoder.stages[0](x)
        second = self.encoder.stages[1](nn.functional.max_pool2d(first, 2))
        up = nn.functional.interpolate(second, scale_factor=2)
        return self.decoder.last(self.decoder.stages[0](torch.cat([first, up], 1)))


@pytest.fixture
def schema():
    task = Categorical(name="task", values=("disc", "square"), missing="unknown", **WHEN)
    size = Continuous(name="size_mm", unit="mm", range=(0, 10), missing="unknown", **WHEN)
    return MetadataSchema([task, size])


@pytest.fixture
def environment(tmp_path, schema, write_csv):
    rows = [
        {"case_id": "a", "task": "disc", "size_mm": "5", "note": "x"},
        {"case_id": "b", "task": "square", "size_mm": "", "note": ""},
    ]
    schema.save(tmp_path / "schema.json")
    table = write_csv(tmp_path / "metadata.csv", rows)
    return {nnunet.SCHEMA: str(tmp_path / "schema.json"), nnunet.TABLE: str(table)}


@pytest.fixture
def facts(environment):
    return nnunet.facts_of(environment)


@pytest.fixture
def steered(facts):
    torch.manual_seed(0)
    return nnunet.steer(PlainConvUNet(), {**facts, "at": "all"}, (1, 8, 8))


def trained(network):
    """The same with gates that have learned something."""
    for name, weight in network.named_parameters():
        if name.startswith("metaseg_gates"):
            nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(1))
    return network


IMAGES = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
META = torch.tensor([[1.0, 0, 0, 0.5, 0], [0, 1, 0, 0.1, 0]])


def test_start_is_the_plain_network_bit_for_bit(steered):
    torch.manual_seed(0)
    plain = PlainConvUNet()
    with steered.told.images(META):
        assert torch.equal(steered(IMAGES), plain(IMAGES))
    own = steered.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())
    assert {name.split(".")[0] for name in own.keys() - plain.state_dict().keys()} == {
        "metaseg_gates"
    }
    steered.load_state_dict({**own, **plain.state_dict()})
    assert isinstance(steered, PlainConvUNet)  # what nnU-Net sets in it is found
    steered.decoder.deep_supervision = True


def test_each_image_gets_its_own_metadata_and_a_case_all_of_its_windows(steered):
    trained(steered)
    with steered.told.images(META):
        both = steered(IMAGES)
    for place in range(2):
        steered.told.case(META[place])
        alone = steered(IMAGES[place : place + 1])
        assert torch.allclose(alone[0], both[place], atol=1e-6)
        windows = steered(IMAGES)
        assert torch.allclose(windows[place], both[place], atol=1e-6)
        assert not torch.allclose(windows[1 - place], both[1 - place], atol=1e-4)


def test_metadata_are_never_used_again(steered):
    with steered.told.images(META):
        steered(IMAGES)
    with pytest.raises(MetadataError, match="nobody told"):
        steered(IMAGES)
    with pytest.raises(ZeroDivisionError), steered.told.images(META):
        _ = 1 / 0
    with pytest.raises(MetadataError, match="nobody told"):
        steered(IMAGES)
    with steered.told.images(META[:1]), pytest.raises(ValueError, match="one row for each image"):
        steered(IMAGES)
    with pytest.raises(RuntimeError, match="outside of its network"):
        steered.encoder.stages[0](IMAGES)


def test_copies_have_gates_and_metadata_of_their_own(steered):
    copy = deepcopy(trained(steered))
    with steered.told.images(META), pytest.raises(MetadataError, match="nobody told"):
        copy(IMAGES)
    with steered.told.images(META), copy.told.images(META):
        assert torch.equal(copy(IMAGES), steered(IMAGES))
        nn.init.zeros_(next(copy.metaseg_gates.parameters()))
        assert not torch.equal(copy(IMAGES), steered(IMAGES))


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_compiled_network_is_the_same_and_takes_new_metadata(steered, backend):
    trained(steered)
    compiled = torch.compile(steered, backend=backend, fullgraph=True)
    assert nnunet.told_of(compiled) is steered.told
    for meta in (META, META.flip(0)):
        with steered.told.images(meta):
            assert torch.allclose(compiled(IMAGES), steered(IMAGES), atol=1e-6)


def in_process(rank, file, path):
    """One of two processes: its own image and metadata; both have the mean gradients."""
    torch.distributed.init_process_group(
        "gloo", f"file://{file}", timeout=timedelta(seconds=300), rank=rank, world_size=2
    )
    facts = json.loads(Path(path).read_text())
    torch.manual_seed(0)
    network = trained(nnunet.steer(PlainConvUNet(), facts, (1, 8, 8)))
    parallel = nn.parallel.DistributedDataParallel(network)
    with nnunet.told_of(parallel).images(META[rank : rank + 1]):
        output = parallel(IMAGES[rank : rank + 1])
    output.square().mean().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    torch.save((output.detach(), gradients), f"{path}.{rank}")
    end_processes()


def test_a_training_of_several_processes_shares_no_metadata(tmp_path, steered):
    """What DistributedDataParallel sends from the first process to the others is no metadata."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", None, 1, 0)
    try:
        parallel = nn.parallel.DistributedDataParallel(steered)
        assert nnunet.told_of(parallel) is steered.told
        with steered.told.images(META):
            before = {name: one.clone() for name, one in parallel.named_buffers()}
            assert not any(one.shape == META.shape for one in before.values())
            parallel(IMAGES)
    finally:
        end_processes()


@pytest.mark.slow  # two further processes import PyTorch and MONAI
def test_each_process_of_a_training_has_its_own_metadata(tmp_path, facts):
    facts = {**facts, "at": "all"}
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(facts))
    torch.multiprocessing.spawn(in_process, (str(tmp_path / "store"), str(path)), nprocs=2)
    torch.manual_seed(0)
    network = trained(nnunet.steer(PlainConvUNet(), facts, (1, 8, 8)))
    with network.told.images(META):
        output = network(IMAGES)
    output.square().mean().backward()
    for rank in range(2):
        found, gradients = torch.load(f"{path}.{rank}", weights_only=True)
        assert torch.allclose(found[0], output[rank], atol=1e-6)
        for name, weight in network.named_parameters():
            assert torch.allclose(gradients[name], weight.grad, atol=1e-6)


def test_facts_tell_what_training_does(environment, facts, schema):
    assert (facts["variant"], facts["at"]) == ("sme", "encoder")
    assert facts["dropout"] == 0.1
    assert (facts["scaled"], facts["mirrored"]) == (["size_mm"], [])
    assert MetadataSchema.from_dict(json.loads(json.dumps(facts))["schema"]) == schema
    more = {nnunet.AT: "encoder.stages.0,decoder.stages.0", nnunet.SCALED: "none"}
    more |= {nnunet.VARIANT: "film", nnunet.DROPOUT: "0"}
    other = nnunet.facts_of({**environment, **more})
    assert other["at"] == ["encoder.stages.0", "decoder.stages.0"]
    assert (other["scaled"], other["variant"], other["dropout"]) == ([], "film", 0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({nnunet.SCHEMA: ""}, "METASEG_SCHEMA is not set"),
        ({nnunet.TABLE: "gone.csv"}, "METASEG_TABLE=gone.csv: no such file"),
        ({nnunet.VARIANT: "se"}, "reads no metadata"),
        ({nnunet.DROPOUT: "much"}, "expected a number"),
        ({nnunet.DROPOUT: "1"}, "expected a number"),
        ({nnunet.SCALED: "size"}, "size"),
    ],
)
def test_wrong_environment_is_refused(environment, changes, match):
    with pytest.raises((ConfigError, MetadataError), match=match):
        nnunet.facts_of({**environment, **changes})


def test_length_is_told_by_the_environment():
    assert nnunet.length_of({}) == (1000, 250, 50, None)
    told = {nnunet.EPOCHS: "3", nnunet.ITERATIONS: "4", nnunet.SEED: "0"}
    assert nnunet.length_of(told) == (3, 4, 1, 0)
    for name, value in ((nnunet.EPOCHS, "0"), (nnunet.ITERATIONS, "1.5"), (nnunet.SEED, "-1")):
        with pytest.raises(ConfigError, match=f"{name}={value}: expected a whole number from"):
            nnunet.length_of({name: value})


def test_cases_without_metadata_are_unknown_where_that_is_trained(environment, facts, schema):
    metadata = nnunet.training_metadata(facts, environment)
    assert metadata.batch(["a", "b"]).tolist() == [[1, 0, 0, 0.5, 0], [0, 1, 0, 0, 1]]
    assert metadata.check(["a", "c"]) == ["c"]
    assert metadata.meta("c").tolist() == schema.unknown().tolist()
    with pytest.raises(MetadataError, match=r"b: no value of 'size_mm'.*METASEG_DROPOUT 0"):
        nnunet.training_metadata({**facts, "dropout": 0}, environment)
    known = nnunet.CaseMetadata(schema, {"a": {"task": "disc", "size_mm": "5"}})
    with pytest.raises(MetadataError, match=r"'c': no row.*never saw unknown"):
        known.check(["a", "c"])
    with pytest.raises(MetadataError, match="'c': no row"):
        known.meta("c")


def test_dummy_is_given_zeros(environment, facts):
    metadata = nnunet.training_metadata({**facts, "variant": "sme-dummy"}, environment)
    assert not metadata.batch(["a", "z"]).any()


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"case_id": "a", "task": "disc"}], "no column 'size_mm'"),
        ([{"case": "a", "task": "disc", "size_mm": "1"}], "did you mean 'case'"),
        ([{"case_id": "a", "task": "disc", "size_mm": "1"}] * 2, "row 3: 'a' as case_id"),
        ([{"case_id": "a", "task": "ring", "size_mm": "1"}], "ring"),
        ([{"case_id": "a", "task": "disc", "size_mm": "99"}], "99"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, schema, write_csv, rows, match):
    with pytest.raises((DataError, MetadataError), match=match):
        nnunet.read_case_metadata(write_csv(tmp_path / "t.csv", rows), schema)


def test_training_hides_some_metadata(environment, facts):
    metadata = nnunet.training_metadata(facts, environment)
    hidden = nnunet.HiddenMetadata(metadata, {**facts, "dropout": 0.5}, seed=0)
    rows = hidden.batch(["a"] * 200)
    assert 0.4 < rows[:, 2].mean() < 0.9
    again = nnunet.HiddenMetadata(metadata, {**facts, "dropout": 0.5}, seed=0)
    assert torch.equal(again.batch(["a"] * 200), rows)


def test_weights_of_another_schema_are_refused(facts):
    nnunet.check_same_facts(facts, {**facts, "table_sha256": "other"}, "checkpoint.pth")
    for other in (None, {**facts, "variant": "film"}, {**facts, "dropout": 0}):
        with pytest.raises(ConfigError, match="was trained with another"):
            nnunet.check_same_facts(facts, other, "checkpoint.pth")


def test_predict_refuses_before_nnunet_is_needed(tmp_path, facts, environment, capsys, monkeypatch):
    call = {"source": tmp_path / "images", "output": tmp_path / "out"}
    call |= {"table": environment[nnunet.TABLE], "device": "cpu"}
    with pytest.raises(ConfigError, match="no trained model"):
        nnunet.predict(tmp_path, **call)
    (tmp_path / "plans.json").write_text("{}")
    with pytest.raises(ConfigError, match="without metadata"):
        nnunet.predict(tmp_path, **call)
    (tmp_path / "plans.json").write_text(json.dumps({nnunet.FACTS: facts}))
    (tmp_path / "dataset.json").write_text('{"file_ending": ".tif"}')
    with pytest.raises(ConfigError, match="no checkpoint_final"):
        nnunet.predict(tmp_path, **call)
    for fold in (0, 1):
        weights_of(tmp_path, fold, facts)
    with pytest.raises(ConfigError, match="'fold_2'"):
        nnunet.predict(tmp_path, **call, folds="0,2")
    with pytest.raises(ConfigError, match="--folds first: expected numbers"):
        nnunet.predict(tmp_path, **call, folds="first")
    with pytest.raises(DataError, match="no images CASE_0000"):
        nnunet.predict(tmp_path, **call)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="give --device cpu"):
        nnunet.predict(tmp_path, **{**call, "device": "cuda"})
    with pytest.raises(SystemExit, match="2"):
        nnunet.main(["predict", *(f"--{key}={value}" for key, value in call.items()), "--model=x"])
    assert "error: x: no trained model" in capsys.readouterr().err
    (tmp_path / "fold_1" / "checkpoint_final.pth").write_text("no weights")
    with pytest.raises(ConfigError, match=r"fold_1.*cannot be read as weights of nnU-Net"):
        nnunet.predict(tmp_path, **call)
    assert not (tmp_path / "out").exists()


def weights_of(home, fold, facts):
    """A fold's checkpoint as nnU-Net writes it, as far as it is asked; the last one's plans."""
    file = home / f"fold_{fold}" / "checkpoint_final.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"init_args": {"plans": {nnunet.FACTS: facts}, "fold": fold}}, file)
    (home / "plans.json").write_text(json.dumps({nnunet.FACTS: facts}))
    (home / "dataset.json").write_text('{"file_ending": ".tif"}')
    return file


@pytest.fixture
def model(tmp_path, facts, environment):
    """Call `predict` for two folds and one image, with a predictor that writes nothing."""
    for fold in (0, 1):
        weights_of(tmp_path / "model", fold, facts)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a_0000.tif").touch()
    call = {"model": tmp_path / "model", "source": tmp_path / "images", "device": "cpu"}
    return {**call, "table": environment[nnunet.TABLE], "output": tmp_path / "out"}


def test_folds_whose_metadata_mean_something_else_are_never_predicted_together(
    model, facts, schema
):
    fields = [{**schema.to_dict()["fields"][0], "values": ["square", "disc"]}]
    turned = {**facts, "schema": {**schema.to_dict(), "fields": fields}}
    for other in (turned, {**facts, "dropout": 0.0}, {**facts, "mirrored": ["task"]}):
        weights_of(model["model"], 0, other)
        weights_of(model["model"], 1, facts)
        with pytest.raises(ConfigError, match=r"fold_0.*was trained with another"):
            nnunet.predict(**model)
        with pytest.raises(ConfigError, match="train all folds alike"):
            nnunet.check_other_folds(other, model["model"], 0)
    nnunet.check_other_folds(facts, model["model"], 0)
    nnunet.check_other_folds(turned, model["model"].parent, 0)  # nothing is there yet
    for file in (model["model"] / "fold_1").iterdir():
        file.unlink()
    (model["model"] / "fold_1").rmdir()
    nnunet.check_other_folds(turned, model["model"], 0)  # the only fold, trained anew


def test_what_is_known_too_late_is_refused(model, schema, environment):
    late = [one.model_copy(update={"availability": "post-operative"}) for one in schema.fields]
    MetadataSchema(late).save(environment[nnunet.SCHEMA])
    facts = nnunet.facts_of(environment)
    for fold in (0, 1):
        weights_of(model["model"], fold, facts)
    with pytest.raises(MetadataError, match="known only later: 'task'"):
        nnunet.predict(**model)
    with pytest.raises(ConfigError, match="nnU-Net cannot be used"):  # it is asked for, then
        nnunet.predict(**model, force=True)


class Predictor:
    """In the place of nnU-Net's; may find that a training goes on."""

    rewritten: Path | None = None

    def __init__(self, **settings):
        self.settings = settings

    def initialize_from_trained_model_folder(self, home, used, checkpoint):
        pass

    def predict_from_files(self, source, output, **settings):
        (Path(output) / "a.tif").touch()
        if self.rewritten:
            self.rewritten.write_bytes(b"other weights")


def test_record_is_of_the_weights_that_predicted(model, facts, schema, monkeypatch):
    monkeypatch.setattr(nnunet, "_predictor", lambda: Predictor)
    monkeypatch.setattr(nnunet, "version", lambda name: f"{name} 2")
    nnunet.predict(**model, mirror=False, step=0.25, out_of_range="flag")
    record = json.loads((model["output"] / nnunet.RECORD).read_text())
    file = model["model"] / "fold_1" / "checkpoint_final.pth"
    assert record["checkpoints_sha256"]["1"] == file_sha256(file)
    assert record["schema_sha256"] == schema.digest
    told = {"checkpoint": file.name, "mirror": False, "step": 0.25, "out_of_range": "flag"}
    assert record["settings"] == {**told, "nnunetv2": "nnunetv2 2"}
    monkeypatch.setattr(Predictor, "rewritten", file)
    with pytest.raises(ConfigError, match=r"fold_1.*changed while it predicted"):
        nnunet.predict(**{**model, "output": model["output"].with_name("more")})
    assert not model["output"].with_name("more").exists()


# The trainer, beside what it takes of nnU-Net 2.8.1.


class Trainer:
    """As nnU-Net's, as far as ours asks it."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        self.my_init_kwargs = {"plans": plans, "configuration": configuration, "fold": fold}
        self.network, self.local_rank, self.fold, self.batch_size = nn.Conv2d(1, 1, 1), 0, fold, 2
        self.configuration_manager = SimpleNamespace(patch_size=[8, 8])
        self.output_folder_base = dataset_json["home"]
        self.output_folder = f"{self.output_folder_base}/fold_{fold}"
        Path(self.output_folder).mkdir(parents=True, exist_ok=True)
        self.said = []

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        self.inference_allowed_mirroring_axes = (0, 1)
        return (-1, 1), False, [9, 9], (0, 1)

    def print_to_log_file(self, *said):
        self.said += said

    def on_epoch_end(self):
        self.saved = deepcopy(self.my_init_kwargs)

    def load_checkpoint(self, checkpoint):
        self.my_init_kwargs = checkpoint

    def on_train_end(self):
        pass


@pytest.fixture
def trainers(monkeypatch):
    """The module of the trainers, imported without nnU-Net."""
    held = {
        "batchgeneratorsv2.transforms.spatial.spatial": {"SpatialTransform": object},
        "nnunetv2.configuration": {"default_num_processes": 1},
        "nnunetv2.inference.predict_from_raw_data": {"nnUNetPredictor": object},
        "nnunetv2.training.dataloading.nnunet_dataset": {"infer_dataset_class": None},
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer": {"nnUNetTrainer": Trainer},
    }
    for name, content in held.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            parent = ".".join(parts[:end])
            if parent not in sys.modules or end == len(parts):
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        sys.modules[name].__dict__.update(content)
    name = "metaseg_monai.sharing.nnunet_trainer.metadata_trainer"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module(name)
    monkeypatch.delitem(sys.modules, name)


def train(trainer, tmp_path, fold=0):
    return trainer({}, "2d", fold, {"home": str(tmp_path / "model")}, torch.device("cpu"))


def test_images_are_not_mirrored_where_metadata_tell_a_side(
    trainers, tmp_path, environment, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    side = Categorical(name="side", values=("left", "right"), missing="unknown", **WHEN)
    plain = train(trainers.nnUNetTrainerMetadata, tmp_path)
    choose = "configure_rotation_dummyDA_mirroring_and_inital_patch_size"
    assert getattr(plain, choose)()[-1] == (0, 1)
    MetadataSchema([side]).save(environment[nnunet.SCHEMA])
    Path(environment[nnunet.TABLE]).write_text("case_id,side\na,left\n")
    of_sides = train(trainers.nnUNetTrainerMetadata, tmp_path)
    assert getattr(of_sides, choose)() == ((-1, 1), False, [9, 9], None)
    assert of_sides.inference_allowed_mirroring_axes is None  # in the checkpoint, for predictions
    assert "no mirroring, for 'side'" in of_sides.said[-1]
    monkeypatch.setenv(nnunet.MIRRORED, "none")
    assert getattr(train(trainers.nnUNetTrainerMetadata, tmp_path), choose)()[-1] == (0, 1)


def test_a_training_beside_folds_of_other_metadata_does_not_begin(
    trainers, tmp_path, environment, facts, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    weights_of(tmp_path / "model", 0, {**facts, "variant": "film"})
    with pytest.raises(ConfigError, match="another variant of metadata; train all folds alike"):
        train(trainers.nnUNetTrainerMetadata, tmp_path, fold=1).on_train_start()


def test_cpu_time_of_a_continued_training_is_that_of_all_its_epochs(
    trainers, tmp_path, monkeypatch
):
    spent = iter([2.0, 4.0, 1.0, 3.0, 5.0])
    monkeypatch.setattr(trainers, "cpu_seconds", lambda: next(spent))
    first = train(trainers.nnUNetTrainerShort, tmp_path)
    first.on_epoch_end()
    first.on_epoch_end()
    again = train(trainers.nnUNetTrainerShort, tmp_path)
    again.load_checkpoint(first.saved)
    again.on_epoch_end()
    again.on_epoch_end()
    again.on_train_end()
    told = json.loads((tmp_path / "model" / "fold_0" / nnunet.SPENT).read_text())
    assert told["cpu_seconds_at_epochs"] == [2, 4, 5, 7]
    assert told["cpu_seconds"] == 9


def test_cpu_time_is_told_where_there_is_no_resource(trainers, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert trainers.cpu_seconds() > 0
    assert not hasattr(trainers, "resource")


def test_folder_has_the_trainers_alone(capsys):
    nnunet.main(["folder"])
    place = Path(capsys.readouterr().out.strip())
    assert [file.name for file in sorted(place.glob("*.py"))] == [
        "__init__.py",
        "metadata_trainer.py",
    ]


# The real package, in an environment of its own.

PYTHON = os.environ.get("METASEG_NNUNET_PYTHON")
SHORT = '''
import torch
from metaseg_monai.sharing.nnunet_trainer.metadata_trainer import nnUNetTrainerMetadata


class Short:
    """Some minutes on one core: no augmentation, fast steps."""

    def __init__(self, plans, configuration, fold, dataset_json, device=None):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_val_iterations_per_epoch = 2
        self.initial_lr = 0.05

    def get_training_transforms(self, patch_size, rotation, scales, *more, **named):
        return self.get_validation_transforms(scales)


class nnUNetTrainerMetadataShort(Short, nnUNetTrainerMetadata):
    pass
'''
# torchvision of PyPI does not import beside torch for CPUs; nnU-Net needs no more of it than that
OPERATORS = """
import importlib.abc
import sys


class Operators(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for one in ("nms", "qnms"):
                signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{one}", signature)


sys.meta_path.insert(0, Operators())
"""
SAME_START = """
import json, os, sys
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

folder = os.environ["nnUNet_preprocessed"] + "/Dataset501_Shapes/"
made = []
for name in ("nnUNetTrainer", "nnUNetTrainerMetadata"):
    plans = {**load_json(folder + "nnUNetPlans.json"), "continue_training": False}
    trainer = find(name)(plans, "2d", 0, load_json(folder + "dataset.json"), torch.device("cpu"))
    torch.manual_seed(0)
    trainer.initialize()
    made.append(trainer)
plain, ours = made
image = torch.rand(2, 1, 48, 48)
own = ours.network.state_dict()
assert all(torch.equal(own[name], value) for name, value in plain.network.state_dict().items())
with ours.network.told.images(ours.metadata.batch(["shape_000_disc", "shape_000_square"])):
    for one, other in zip(plain.network(image), ours.network(image), strict=True):
        assert torch.equal(one, other)
print("SAME", type(ours.network).__name__, len(own))
"""


def nnunet_environment(folder, home):
    """Variables for the commands of the real package, with nnU-Net's folders in `home`."""
    environment = {
        **os.environ,
        **{f"nnUNet_{one}": str(home / f"nnUNet_{one}") for one in ("raw", "results")},
        "nnUNet_preprocessed": str(home / "nnUNet_preprocessed"),
        nnunet.EXTERNAL: nnunet.folder(),
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(nnunet.__file__).parents[2]),
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
    }
    works = subprocess.run([PYTHON, "-c", "import torchvision"], capture_output=True).returncode
    if works != 0:
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(OPERATORS)
        environment["PYTHONPATH"] += f"{os.pathsep}{folder / 'site'}"
    return environment


def draw_shapes(root):
    """Discs and squares in every image; the metadata say which of them is meant."""
    data = root / "nnUNet_raw" / "Dataset501_Shapes"
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (data / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    tasks = {}
    for number in range(46):
        (a, b), (c, d) = random.integers(11, 22, 2), random.integers(26, 34, 2)
        shapes = {"disc": (y - a) ** 2 + (x - b) ** 2 <= 64}
        shapes["square"] = (abs(y - c) <= 7) & (abs(x - d) <= 7) & ~shapes["disc"]
        image = random.normal(60, 12, (48, 48)) + 90 * (shapes["disc"] | shapes["square"])
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        where = "Tr" if number < 40 else "Ts"
        for task, label in shapes.items():  # so that no image tells which is meant
            case = f"shape_{number:03d}_{task}"
            tasks[case] = task
            tifffile.imwrite(data / f"images{where}" / f"{case}_0000.tif", pixels)
            tifffile.imwrite(data / f"labels{where}" / f"{case}.tif", label.astype(np.uint8))
    described = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "shape": 1}}
    described |= {"numTraining": 80, "file_ending": ".tif"}
    described |= {"overwrite_image_reader_writer": "NaturalImage2DIO"}
    (data / "dataset.json").write_text(json.dumps(described))
    prepared = root / "nnUNet_preprocessed" / data.name
    prepared.mkdir(parents=True)
    cases = list(tasks)
    split = [{"train": cases[:76], "val": cases[76:80]}]
    (prepared / "splits_final.json").write_text(json.dumps(split))
    return data, tasks


def write_tasks(path, tasks):
    path.write_text("case_id,task\n" + "".join(f"{case},{task}\n" for case, task in tasks.items()))


def shrink(plans):
    """A network of three stages, for one core."""
    content = json.loads(plans.read_text())
    own = content["configurations"]["2d"]
    own["batch_size"], kept = 8, own["architecture"]["arch_kwargs"]
    for name in ("kernel_sizes", "strides"):
        kept[name] = kept[name][:3]
    kept |= {"n_stages": 3, "features_per_stage": [32, 64, 128]}
    kept |= {"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]}
    plans.write_text(json.dumps(content))


def dice(masks, labels):
    found = []
    for label in sorted(labels.glob("*.tif")):
        pred, true = tifffile.imread(masks / label.name) > 0, tifffile.imread(label) > 0
        found.append(2 * (pred & true).sum() / max(1, pred.sum() + true.sum()))
    return np.mean(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not PYTHON, reason="METASEG_NNUNET_PYTHON names no Python with nnunetv2")
def test_real_nnunet_learns_the_switch(tmp_path, schema):
    data, tasks = draw_shapes(tmp_path)
    MetadataSchema(schema.fields[:1]).save(tmp_path / "schema.json")
    write_tasks(tmp_path / "metadata.csv", tasks)
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "short_trainers.py").write_text(SHORT)
    environment = {
        **nnunet_environment(tmp_path, tmp_path),
        nnunet.EXTERNAL: os.pathsep.join([str(tmp_path / "short"), nnunet.folder()]),
        nnunet.TABLE: str(tmp_path / "metadata.csv"),
        nnunet.SCHEMA: str(tmp_path / "schema.json"),
        nnunet.AT: "all",
        nnunet.EPOCHS: "20",
        nnunet.ITERATIONS: "60",
        nnunet.SEED: "0",
    }

    def call(*words, workers="0", refused=False):
        own = {**environment, "nnUNet_n_proc_DA": workers}
        done = subprocess.run([*map(str, words)], env=own, capture_output=True, text=True)
        assert (done.returncode != 0) == refused, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    call("nnUNetv2_plan_and_preprocess", "-d", 501, "-c", "2d", "-np", 1, "-npfp", 1, workers="1")
    shrink(tmp_path / "nnUNet_preprocessed" / data.name / "nnUNetPlans.json")
    assert "SAME SteeredPlainConvUNet" in call(PYTHON, "-c", SAME_START)
    train = ("nnUNetv2_train", 501, "2d", 0, "-tr", "nnUNetTrainerMetadataShort", "-device", "cpu")
    call(*train)
    name = "nnUNetTrainerMetadataShort__nnUNetPlans__2d"
    model = tmp_path / "nnUNet_results" / data.name / name
    validation = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert validation["foreground_mean"]["Dice"] > 0.85

    command = (PYTHON, "-m", "metaseg_monai.sharing.nnunet", "predict", "--model", model)
    command += ("--source", data / "imagesTs", "--device", "cpu", "--processes", 1)
    swapped = {case: {"disc": "square", "square": "disc"}[task] for case, task in tasks.items()}
    write_tasks(tmp_path / "foreign.csv", swapped)
    write_tasks(tmp_path / "unknown.csv", {"shape_000_disc": "disc"})
    scores = {}
    for table in ("metadata", "foreign", "unknown"):
        masks = tmp_path / table
        call(*command, "--table", tmp_path / f"{table}.csv", "--output", masks)
        scores[table] = dice(masks, data / "labelsTs")
        record = json.loads((masks / nnunet.RECORD).read_text())
        assert len(record["unknown"]) == (12 if table == "unknown" else 0)
    print(scores)
    assert scores["metadata"] > 0.85
    assert scores["foreign"] < 0.3
    assert scores["metadata"] - 0.1 > scores["unknown"] > 0.2
    plain = ("nnUNetv2_predict_from_modelfolder", "-i", data / "imagesTs", "-m", model)
    plain += ("-o", tmp_path / "theirs", "-device", "cpu", "-f", 0)
    assert "nobody told those of the image" in call(*plain, refused=True)
