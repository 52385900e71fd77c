"""A configuration is read without being run, and what is not on the list is told."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from metaseg_monai.bundle.run import configuration_file, read_workflow, resolve_bundle
from metaseg_monai.bundle.trust import birth_of, read_bundle, read_contents
from metaseg_monai.errors import ConfigError
from metaseg_monai.sharing.check_bundle import check_bundle
from tests.extras import needed

BUNDLES = sorted((Path(__file__).resolve().parents[2] / "bundles").glob("*/configs"))
# fmt: off
EXPRESSIONS = [
    "$[setattr(__import__('os').getpid(), 1) for setattr in [max]]",
    "$setattr(__import__('os'), 'benchmark', True)",
    "$__import__('os').system('id')",
    "$torch.os.system('id')",
    "$numpy.load('x.npy', allow_pickle=True)",
    "$torch.load('m.pt')",
    "$torch.load('m.pt', weights_only=False)",
    "$torch.hub.load('a/b','c')",
    "$torch.utils.cpp_extension.load(name='x', sources=['x.cpp'])",
    "$monai.bundle.download('x')",
    "$monai.bundle.run('x')",
    "$monai.apps.download_and_extract('http://x')",
    "$eval('1')",
    "$exec('1')",
    "$compile('1','','eval')",
    "$open('/tmp/x','w').write('1')",
    "$getattr(torch,'os')",
    '$().__class__.__bases__[0].__subclasses__()',
    '$f"{__import__(\'os\').system(\'id\')}"',
    "$'{0.__class__}'.format(1)",
    "$type('A',(),{})",
    '$[c for c in ().__class__.__base__.__subclasses__()]',
    "$(lambda: __import__('os'))()",
    "$monai.utils.optional_import('os')[0].system('id')",
    "$monai.utils.module.optional_import('os')",
    "$globals()['x']",
    '$vars()',
    '$__builtins__',
    '$__local_refs',
    "$torch.serialization.pickle.loads(b'')",
    "$np.core.os.system('id')",
    "$np.f2py.os.system('x')",
    "$map(torch.os.system, ['id'])",
    "$sorted(['id'], key=torch.os.system)",
    "$[f('id') for f in [torch.os.system]]",
    "$torch.jit.load('x')",
    "$torch.ops.load_library('x')",
    '$torch.compile(1)',
    "$torch.classes.load_library('x')",
    "$monai.config.deviceconfig.os.system('x')",
    "$pandas.read_pickle('x')",
    "$print.__self__.eval('1')",
    '$(x:=torch.os)',
    "$'a'*10**10",
    "$10**9*[0]",
    "$'a'*3000*3000",
    "$([0] + [1]*2)*(1<<30)",
    "$[i for i in range(10**12)]",
    "$sum(range(0, -10000000000, -1))",
    '$torch.multiprocessing.spawn(print)',
    "$@imports#0.system('id')",
    '$@',
    '@imports#0',
    "$setattr(torch,'load',eval)",
    "$delattr(torch,'load')",
    '$input()',
    '$breakpoint()',
    '$help()',
    "$str.format('{0.__init__}', 1)",
    "$'%s' % open('/x','w')",
    "$[*map(eval,['1'])]",
    "${'a': torch.os}['a'].system('id')",
    "$torch.distributed.rpc.init_rpc('x')",
    "$monai.transforms.LoadImage('os.system', command='id')",
    "$monai.transforms.LoadImage(reader='os.system')",
    "$map(monai.transforms.LoadImage, ['os.system'])",
    "$1 if exec('1') else 2",
    "$[i for i in range(3) if __import__('os')]",
    '$9**9**9**9',
    "$lambda: __import__('os')",
    '$torch.nn.Module.__init__.__globals__',
    "$torch.storage._load_from_bytes(b'')",
    "$numpy.ctypeslib.load_library('x','.')",
    '$numpy.lib.format.read_array(1)',
    "$numpy.fromfile('x').tofile('/tmp/y')",
    "$torch.save(1,'/tmp/x')",
    "$torch.package.PackageImporter('x')",
    "$torch.utils.model_zoo.load_url('x')",
    "$torch.hub.load_state_dict_from_url('x')",
    "$monai.data.utils.pickle.loads(b'')",
    '$monai.networks.trt_compiler.trt_compile(1)',
    '$monai.engines.utils.torch.os',
    "$ 'x'.__class__",
    "$import os; os.system('id')",
    '$import subprocess',
    '$from os import system',
    '$import pickle as torch',
    '$from torch import hub',
    '$import torch.utils.cpp_extension as c',
    '$import builtins',
    '$from . import scripts',
    '$import ctypes',
    '$import importlib',
    '$from monai.bundle import run',
    '$import urllib.request',
    '$import scripts',
    '$from glob import os',
    '%/tmp/evil.json#x',
    '%configs/other.yaml::a',
]
TARGETS = [
    'os.system',
    'subprocess.Popen',
    'torch.hub.load',
    'builtins.eval',
    'eval',
    'numpy.load',
    'torch.load',
    'monai.bundle.run',
    'monai.bundle.ConfigParser',
    'ConfigParser',
    'optional_import',
    'download_url',
    'scripts.net.Net',
    'pandas.read_pickle',
    'monai.losses.PerceptualLoss',
    'PerceptualLoss',
    'monai.data.LMDBDataset',
    'functools.partial',
    'operator.attrgetter',
    'torch.jit.load',
    'metaseg_monai.training.weights.target_of',
    'metaseg_monai.cli.commands.load',
    'monai.transforms.os.system',
    '$torch.os.system',
    '@x',
    '%x',
    5,
    'torch.nn.Module.load',
    'shutil.rmtree',
    'pathlib.Path.unlink',
    'monai.transforms.TorchVision',
    'monai.apps.DecathlonDataset',
    'monai.handlers.TrtHandler',
    'monai.networks.nets.TorchVisionFCModel',
    'tempfile.mkstemp',
]
CONFIGURATIONS = [
    {"load": {"_target_":"LoadImage","reader":["NibabelReader"],"command":"x"}, "load#reader#0":"os.system"},  # noqa: E501
    {"r":["NibabelReader"], "r#0":"os.system", "load":{"_target_":"LoadImage","reader":"@r"}},
    {"x":{"_target_":"LoadImage"}, "x#_mode_":"callable", "y":"$@x('os.system')"},
    {"x":{"_target_":"NumpyReader","allow_pickle":[False]}},{"x":{"_target_":"PersistentDataset","weights_only":[]}},{"x":{"_target_":"DenseNet121","pretrained":[False]}},{"x":{"_target_":"PersistentDataset","weights_only":0}},
    {"y":"$pathlib.Path.replace(pathlib.Path('a'), '/home')","i":"$import pathlib"},{"i":"$import pathlib","y":"$map(pathlib.Path.replace, [1])"},  # noqa: E501
    {"z":"%h#evil","h":{"evil":"$@#imports[0].system('x')"}},{"_meta_":{"x":"$import monai.bundle as b"}},{"x":"$import monai.bundle as b"},  # noqa: E501
    {"x":{"_target_":"DiceLoss","_mode_":"callable"},"x#_target_":"LoadImage"},{"x":{"_target_":"metaseg_monai.tables.table.read_table"}},
    {'x': {'_target_': 'LoadImaged', 'keys': 'image', 'reader': 'os.system'}},
    {'x': {'_target_': 'LoadImage', 'reader': ['ITKReader', 'os.system']}},
    {'x': {'_target_': 'SaveImaged', 'writer': 'subprocess.Popen'}},
    {'x': {'_target_': 'PatchInferer', 'merger_cls': 'os.system'}},
    {'x': {'_target_': 'DenseNet121', 'pretrained': True}},
    {'p': True, 'x': {'_target_': 'FlexibleUNet', 'pretrained': '@p'}},
    {'x#_target_': 'os.system'},
    {'+x': {'_target_': 'os.system'}},
    {'x::y::_target_': 'os.system'},
    {'x': {'_target_': 'LoadImage', '_mode_': 'callable'}},
    {'x': {'_target_': 'DiceLoss', '_mode_': 'debug'}},
    {'x': {'_target_': 'DiceLoss', '_requires_': "$__import__('os')"}},
    {'x': {'_target_': 'DiceLoss', '_disabled_': "$eval('1')"}},
    {'x': {'_target_': 'NumpyReader', 'allow_pickle': True}},
    {'x': {'_target_': 'PersistentDataset', 'weights_only': False}},
    {'a': [{'b': [{'c': "$eval('1')"}]}]},
    {'x': {'_target_': 'SupervisedTrainer', 'compile': True}},
    {'reader': 'os.system', 'x': {'_target_': 'LoadImage', 'reader': '@reader'}},
    {'imports': ['$import torch'], 'x': "$@imports#0.load('x')"},
    {'imports': ['$import torch', "$@#0.load('x')"]},
    {'or': 1, 'x': "$'@or' and eval('1')"},
    {'if': 1, 'x': "$'@if' else eval('1')"},
]
# what bundles of MONAI's model zoo hold
ORDINARY = [
    '$import glob',
    '$import os',
    '$import ignite',
    '$from ignite.engine import Events',
    '$from functools import partial',
    '$import torch.distributed as dist',
    "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
    "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels[:-9])]",
    '$@network_def.to(@device)',
    '$@network.parameters()',
    "$monai.handlers.from_engine(['pred', 'label'])",
    "$monai.handlers.from_engine(['loss'], first=True)",
    '$not @finetune',
    '$@train#trainer.run()',
    '$monai.utils.set_determinism(seed=123)',
    "$setattr(torch.backends.cudnn, 'benchmark', True)",
    '$@checkpointloader(@evaluator)',
    '$dict(a=1)',
    '$@train#deterministic_transforms + @train#random_transforms',
    '%train#deterministic_transforms',
    '$lambda x : x[1:]',
    "$lambda x: x.state.metrics['val_mean_dice']",
    "$[x.replace('.jpg', '_seg.jpg') for x in @images]",
    "$os.path.join(@dataset_dir,'train', '*', '*[!seg].jpg')",
    '$np.pi',
    '$(np.float32, np.int32)',
    '$monai.utils.InterpolateMode.BICUBIC',
    '$int(@epochs * 0.5)',
    "$['image'] * 100 + [0.5] * @count",
    "$[10 * i for i in range(1000)]",
    "$'%s' * 2",
    '$len(@label_names) + 1',
    '$@train#handlers[: -2 if dist.get_rank() > 0 else None]',
    "$dist.is_initialized() or dist.init_process_group(backend='nccl')",
    '$torch.cuda.set_device(@device)',
    '$@train#trainer.logger.setLevel(logging.WARNING if dist.get_rank() > 0 else logging.INFO)',
    "$monai.data.load_decathlon_datalist(@f, data_list_key='training', base_dir=@d)",
    '$torch.ones(len(@train_dataset))',
    '$@validate#handlers#0.set_trainer(trainer=@train#trainer) if @early_stop else None',
    '$numpy.float32',
    "$torch.device(f'cuda:{dist.get_rank()}')",
    '$dist.is_initialized() and dist.destroy_process_group()',
    "$@bundle_root + '/models/model.pt'",
    '$lambda x, s=@output_classes: np.concatenate(tuple([ndimage.binary_dilation((x==_k).astype(x.dtype), iterations=48).astype(x.dtype) for _k in range(s)]), axis=0)',  # noqa: E501
]
# fmt: on
IMPORTS = [
    "$import glob",
    "$import os",
    "$import logging",
    "$import torch.distributed as dist",
    "$from scipy import ndimage",
]
SPLEEN = {
    "imports": ["$import glob", "$import os", "$import ignite"],
    "bundle_root": ".",
    "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
    "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz')))",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "UNet", "spatial_dims": 3, "norm": "batch"},
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.1},
    "train": {
        "deterministic_transforms": [
            {"_target_": "LoadImaged", "keys": ["image", "label"], "reader": "ITKReader"},
            {"_target_": "EnsureChannelFirstd", "keys": ["image", "label"]},
            {"_target_": "monai.transforms.Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Lambdad", "keys": "label", "func": "$lambda x: (x > 0).astype(x.dtype)"},
        ],
        "preprocessing": {"_target_": "Compose", "transforms": "%train#deterministic_transforms"},
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels[:-9])]",
            "transform": "@train#preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2},
        "handlers": [
            {"_target_": "CheckpointLoader", "_disabled_": "$not @finetune", "load_path": "a.pt"},
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 5},
            {
                "_target_": "StatsHandler",
                "output_transform": "$monai.handlers.from_engine(['loss'])",
            },
            {"_target_": "TensorBoardStatsHandler", "log_dir": "@output_dir"},
        ],
        "key_metric": {"accuracy": {"_target_": "ignite.metrics.Accuracy"}},
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": 300, "amp": True},
    },
    "initialize": [
        "$monai.utils.set_determinism(seed=123)",
        "$setattr(torch.backends.cudnn, 'benchmark', True)",
    ],
    "run": ["$@train#trainer.run()"],
}


@pytest.mark.parametrize("configs", BUNDLES, ids=lambda path: path.parent.name)
def test_our_bundles_are_clean(configs):
    """A new part of a bundle must be written into the lists of metaseg_monai/bundle/listed.py."""
    assert read_bundle(configs.parent) == []


def test_there_are_more_than_a_hundred():
    assert len({*EXPRESSIONS, *map(str, TARGETS), *map(str, CONFIGURATIONS)}) > 140


@pytest.mark.parametrize("value", EXPRESSIONS)
def test_an_expression_that_does_more_is_told(value):
    assert read_contents({"a.json": {"imports": ["$import os"], "x": value}})
    assert read_contents({"a.json": {"imports": ["$import os"]}, "b.json": {"+x": [[value]]}})


@pytest.mark.parametrize("target", TARGETS)
def test_a_part_that_is_not_listed_is_told(target):
    assert read_contents({"a.json": {"x": {"_target_": target, "a": 1}}})
    assert read_contents({"a.json": {"x#y#_target_": target}})


@pytest.mark.parametrize("content", CONFIGURATIONS, ids=str)
def test_a_listed_part_that_is_made_to_do_something_else_is_told(content):
    assert read_contents({"a.json": content})


@pytest.mark.parametrize("value", ORDINARY)
def test_what_ordinary_bundles_hold_is_clean(value):
    assert read_contents({"a.json": {"imports": IMPORTS, "x": value}}) == []


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_bundle_in_the_manner_of_the_model_zoo_is_clean(tmp_path, suffix):
    if suffix == "yaml":
        needed("yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / f"configs/train.{suffix}").write_text(json.dumps(SPLEEN))
    assert read_bundle(tmp_path) == []
    assert check_bundle(tmp_path).verdict == "clean"


LOGGING = "[handler_a]\nclass=StreamHandler\nargs=(sys.stdout,)\n"


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        ("configs/logging.conf", LOGGING.replace("(sys.stdout,)", "(open('x', 'w'),)"), "logging"),
        ("configs/logging.conf", LOGGING.replace("StreamHandler", "x.Evil"), "logging"),
        ("configs/metadata.json", '{"description": "$__import__(\'os\').getpid()"}', "call"),
        ("configs/simulate.json", '{"_target_": "os.system", "command": "id"}', "call"),
        ("configs/train.yaml", "x: !!python/object/apply:os.system [id]", "unreadable"),
        ("configs/train.json", "[" * 100_000, "unreadable"),
        ("configs/deep.json", json.dumps({"x": "$" + "(" * 5000 + ")" * 5000}), "unreadable"),
        ("scripts/net.py", "import os", "own code"),
        ("glob.py", "import os", "own code"),
        ("numpy/core.so", "", "own code"),
    ],
)
def test_other_files_of_a_bundle_are_read_too(tmp_path, file, text, kind):
    if file.endswith("yaml"):
        needed("yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/train.json").write_text("{}")
    (tmp_path / "configs/logging.conf").write_text(LOGGING)
    assert read_bundle(tmp_path) == []
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert {(one.file, one.kind) for one in read_bundle(tmp_path)} == {(file, kind)}


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_yaml_is_told_in_one_line(tmp_path, monkeypatch, suffix):
    (tmp_path / "zoo/configs").mkdir(parents=True)
    (tmp_path / f"zoo/configs/train{suffix}").write_text("x: 1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"train{suffix}: is YAML, which needs PyYAML; pip"):
        check_bundle(tmp_path / "zoo")
    with pytest.raises(ConfigError, match=rf"train{suffix}: is YAML, .*take JSON; save it as JSON"):
        resolve_bundle(tmp_path / "zoo")
    with pytest.raises(ConfigError, match=rf"train{suffix}: is YAML, .*take JSON; save it as JSON"):
        configuration_file(tmp_path, str(tmp_path / f"zoo/configs/train{suffix}"))


def test_the_report_holds_verdict_and_findings(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/train.json").write_text(json.dumps({"a": {"b": ["$open('x', 'w')"]}}))
    read = check_bundle(tmp_path, trust_report=True)
    told = json.loads((tmp_path / "trust.json").read_text())
    assert (told["verdict"], read.verdict) == ("findings", "findings")
    (found,) = told["findings"]
    assert list(found) == ["file", "id", "kind", "text", "why"]
    assert (found["file"], found["id"], found["kind"]) == ("configs/train.json", "a#b#0", "file")
    assert check_bundle(BUNDLES[0].parent, output=tmp_path / "out").problems == []
    assert json.loads((tmp_path / "out/trust.json").read_text())["verdict"] == "clean"


def test_a_finding_hides_nothing_from_a_terminal():
    (found,) = read_contents({"a.json": {"x\n": {"_target_": "os.\x1b[2J" + "a" * 500 + "END"}}})
    assert str(found).isprintable()
    assert "END" in str(found)


LOSS, LOAD = {"_target_": "DiceLoss"}, {"_target_": "LoadImage"}
READER = {"_target_": "LoadImage", "reader": "@r#1"}


@pytest.mark.parametrize(
    ("train", "more"),
    [
        ({"r": ["PILReader"] * 2}, {"r": ["PILReader"], "+r": ["os.system"], "load": READER}),
        ({"r": [["PILReader"]], "r#0#0": "os.system"}, {"load": {**READER, "reader": "@r#0"}}),
        ({"x": [LOSS] * 3}, {"x": [LOSS], "+x": [LOSS, LOAD], "x#2#_mode_": "callable"}),
        ({"x": [1] * 3}, {"x": [1], "+x": [1, {"m": "$import os"}], "y": "$@x#2#m.replace(1, 2)"}),
        (
            {"c": {"r": "PILReader"}, "load": {**READER, "reader": "@c#r"}},
            {"+c": {"r": "os.system"}},
        ),
        ({"x": LOSS}, {"x#_target_": "os.system"}),
    ],
)
def test_what_files_become_when_they_are_merged_is_read(train, more):
    assert read_contents({"configs/train.json": train, "configs/evaluate.json": more})


STRANGE = {"_target_": "LoadImage", "reader": "@rs#1"}


def test_nothing_is_read_that_is_not_merged(bundle, tmp_path):
    """A file that MONAI does not merge must not hide what one that it merges has."""
    configs = shutil.copytree(bundle / "configs", tmp_path / "b/configs")
    files = [configs / "train.json", configs / "evaluate.json"]
    assert "seed" in read_workflow(tmp_path / "b", files, {}).parser
    for file, more in zip(files, ({"rs": ["PILReader"] * 2}, {"rs": ["PILReader"]}), strict=True):
        file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    (configs / "simulate_z.json").write_text(json.dumps({"y": 1, "rs": 1}))
    read_workflow(tmp_path / "b", files, {"y": "@rs#0"}, ["y"])
    evaluate = {**json.loads(files[1].read_text()), "+rs": ["os.system"], "y": STRANGE}
    files[1].write_text(json.dumps(evaluate))
    with pytest.raises(ConfigError, match=r"evaluate\.json, y#reader: @rs#1 .*os\.system"):
        read_workflow(tmp_path / "b", files, {})
    assert {one.id for one in read_bundle(tmp_path / "b")} == {"+rs", "y#reader"}


def test_the_users_own_parts_need_no_trust_but_those_of_a_model_from_elsewhere(
    bundle, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "download/model").mkdir(parents=True)
    (tmp_path / "download/brought.py").write_text("raise SystemExit('run')")
    (tmp_path / "nets_of_mine.py").write_text("raise SystemExit('run')")
    files = [bundle / "configs/train.json"]

    def read(network, model=None, **settings):
        given = {"network_def": network, **settings}
        written = given if model else ()
        return read_workflow(bundle, files, given, written, model=model)

    model = tmp_path / "download/model"
    for target in ("nets_of_mine.Net", "download.brought.Net"):
        read({"_target_": target})
        with pytest.raises(ConfigError, match="What is set would run"):
            read({"_target_": target}, model)
    (model / "model.pt").touch()
    (model / "training.json").write_text(json.dumps({"born": birth_of(model / "model.pt")}))
    read({"_target_": "nets_of_mine.Net"}, model)
    shutil.copytree(model, tmp_path / "copy")  # as an archive is unpacked
    monkeypatch.chdir(tmp_path / "copy")
    with pytest.raises(ConfigError, match="What is set would run"):
        read({"_target_": "nets_of_mine.Net"}, tmp_path / "copy")
    installed = {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": False}
    for network in (installed, {"_target_": "torch.nn.Bilinear", "in1_features": 1}):
        read(network)
        with pytest.raises(ConfigError, match="not on the list"):
            read(network, model)
    for more in ({"pretrained": True}, {"pretrained": "@epochs"}):
        with pytest.raises(ConfigError, match="download"):
            read({**installed, **more})
    with pytest.raises(ConfigError, match=r"pretrained=True .* set it to null"):
        read({"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"})
    for target in ("os.system", "torch.jit.load", "subprocess.Popen", "torch.hub.load"):
        with pytest.raises(ConfigError, match="not on the list"):
            read({"_target_": target})


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"x": "%x"}, "unreadable"),
        ({"x": ["%x", "%x"]}, "unreadable"),
        ({"z": "%####z", "x": {"y": ["%#", "%#"]}}, "unreadable"),
        ({"x": ["%y"] * 9, "y": ["%x"] * 9}, "unreadable"),
        ({f"x{n}": [f"%x{n + 1}"] * 30 for n in range(9)}, "unreadable"),
        ({"x": {"y": "$import os"}}, "module"),
        ({"h": {"n": "$import os", "x": "$@#n.replace('a', 'b')"}, "z": "%h"}, "module"),
        ({"x": "${'a': 1}['{0.a}'.format(1)]"}, "call"),
        ({"x": "$'{:{0.a}}'.format(1)"}, "call"),
    ],
)
def test_what_moves_text_is_told_or_read_where_it_goes(content, kind):
    assert kind in {one.kind for one in read_contents({"a.json": content})}
    assert read_contents({"a.json": {"x": "$'{:03d} {a:.2f}'.format(3, a=@s)", "s": 1}}) == []
