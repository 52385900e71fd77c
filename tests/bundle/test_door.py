"""What a user gives as data is never run, and comes back as it was given."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from monai.bundle import ConfigParser, ConfigWorkflow

from metaseg_monai.bundle.configuration import effective, own_root
from metaseg_monai.bundle.overrides import as_data, check_overrides, meant
from metaseg_monai.cli.commands import run
from metaseg_monai.errors import ConfigError, MetasegError
from metaseg_monai.explain.figure_style import STYLE, png
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.study.design import Study
from metaseg_monai.tables.columns import ColumnMap

EVIL = "$__import__('pathlib').Path('canary').touch()"
TARGET = {"_target_": "pathlib.Path.touch", "self": "canary"}
HOSTILE = [
    *(EVIL, "$b", "@c", "@schema", "%seed", "line#1", "%d", "${x}", "a::b", "@#0", "%#1", "$"),
    *("run#1/$x", "$'x'", 'it\'s "#" \\#', "$import os", "ä#\n\t", "@", "#", "$1 + 1"),
]
BUNDLE = "synthetic_shapes_segmentation"


class StopError(Exception):
    """In place of a run."""


@pytest.fixture
def work(bundle, tmp_path, monkeypatch):
    """A working folder with images, a model's folder and a bundle; nothing is trained in it."""
    monkeypatch.chdir(tmp_path)
    seen = {}

    def stop(workflow):
        for name in ("output_dir", "dataset_dir", "metadata", "displayable_configs", "modes"):
            if name in workflow.parser:
                seen[name] = workflow.parser.get_parsed_content(name)
        raise StopError

    monkeypatch.setattr(ConfigWorkflow, "run", stop)
    # it reads the table, which makes the bundle's data in the folder that all tests share
    monkeypatch.setattr("metaseg_monai.sharing.run._tell_folds", lambda workflow: None)
    monkeypatch.setattr("metaseg_monai.study.run.run_all", lambda *_: {})
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.tif").write_bytes(b"")
    (tmp_path / "bundle").symlink_to(bundle)
    tmp_path.joinpath("seen").write_text("")
    return tmp_path, seen


def attempt(*words):
    """Run a command as far as it goes."""
    try:
        run([str(word) for word in words])
    except (MetasegError, StopError, SystemExit) as error:
        return error
    return None


@pytest.mark.parametrize("text", HOSTILE)
def test_text_comes_back_as_it_was_given(text):
    given = {"a": text, "b": [text], "c": {"d": text}, "e": {text: text}, "f": {"_target_": text}}
    parser = ConfigParser({"seed": 1, "schema": 2, **as_data(given), "run": "@e"})
    assert {name: parser.get_parsed_content(name) for name in given} == given
    assert parser.get_parsed_content("run") == {text: text}
    entered = check_overrides({"name": "x", "n": 1}, {"name": text})
    assert ConfigParser(entered).get_parsed_content("name") == text
    parser = ConfigParser({"size": as_data(text), "net": {"label": "@size"}, "told": None})
    parser["told"] = "$effective('net')"
    parser.globals["effective"] = effective
    assert parser.get_parsed_content("told") == {"net": {"label": text}}
    assert meant(as_data(text)) in ((True, text), (False, None))


SETTINGS = [
    *("variant", "output_dir", "dataset_dir", "schema_file", "columns_file", "epochs", "roi_size"),
    *("seed", "device", "in_channels", "intensity_range", "optimizer", "network_def", "resume"),
    *("cases", "table#path", "train#augmentation", "metadata_dropout", "loss", "best#path"),
]


TEXTS = SETTINGS[:5]  # which are what they say


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_of_a_training_is_run(work, name):
    folder, _ = work
    for value in (EVIL, json.dumps([EVIL]), json.dumps(TARGET), json.dumps({"x": EVIL})):
        error = attempt("train", "bundle", f"--{name}", value)
        refused = isinstance(error, MetasegError)
        assert refused or (name in TEXTS and isinstance(error, StopError)), (name, value, error)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize(
    "words",
    [
        *(("evaluate", "bundle", f"--{name}", EVIL) for name in ("split", "modes", "ckpt_path")),
        *(
            ("evaluate", "bundle", f"--{n}", json.dumps({EVIL: EVIL}))
            for n in ("shuffle", "regions")
        ),
        ("evaluate", "bundle", "--domain", EVIL),
        ("evaluate", "bundle", "--modes", f"normal,fixed:{EVIL}"),
        ("evaluate", EVIL),
        ("explain", "bundle", "--explain_gate", EVIL),
        ("explain", "bundle", "--explain_cases", EVIL),
        ("estimate", "bundle", "--output_dir", "out", "--estimate_field", EVIL),
        ("estimate", "bundle", "--output_dir", EVIL),
        ("train", EVIL),
        ("train", "bundle", "--bundles", EVIL),
        ("train", "bundle", "--configuration", EVIL),
        ("predict", "bundle", "--source", EVIL, "--output", "out"),
        ("predict", "bundle", "--source", "images", "--output", EVIL),
        ("predict", "bundle", "--source", "images", "--output", "o", "--meta", f"task={EVIL}"),
        ("predict", "bundle", "--source", "images", "--output", "o", "--meta", f"{EVIL}=a"),
        (
            *("predict", "bundle", "--source", "images", "--output", "o", "--meta"),
            "_target_=pathlib.Path.touch,self=canary",
        ),
        ("predict", "bundle", "--source", "images", "--output", "o", "--ckpt_path", EVIL),
        ("predict", "bundle", "--source", "images", "--output", "o", "--prediction_form", EVIL),
        ("predict", "bundle", "--source", "images", "--output", "o", "--objects_by", EVIL),
        (
            "predict",
            "bundle",
            "--source",
            "images",
            "--output",
            "o",
            "--layout",
            json.dumps(TARGET),
        ),
        (
            *("predict", "bundle", "--source", "images", "--output", "o"),
            *("--displayable_configs", json.dumps({**TARGET, "task": EVIL})),
        ),
        ("study", "bundle", "--variants", EVIL),
        ("study", "bundle", "--seeds", EVIL),
        ("study", "bundle", "--epochs", EVIL),
        ("study", "bundle", "--dataset_dir", EVIL, "--output", EVIL),
        ("study", "bundle", "--cluster_settings", json.dumps({"x": EVIL})),
        ("report", "images", "--title", EVIL),
        ("report", EVIL),
        ("check", EVIL, "--schema_file", EVIL),
        ("score", "--predictions", EVIL, "--labels", "images", "--output", "out"),
        ("fit-schema", EVIL),
        ("check-bundle", EVIL),
        ("generate", "synthetic-shapes", "--output", "out", "--size", EVIL),
        ("prepare", "names", "--source", "images", "--output", "out", "--pattern", EVIL),
        ("demo", "--epochs", EVIL, "--output", "out"),
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_no_argument_of_a_command_is_run(work, words):
    folder, _ = work
    attempt(*words)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("value", [EVIL, "@seed", "%seed", "$1", [EVIL], {"x": EVIL}])
@pytest.mark.parametrize("place", ["settings", "conditions", "data_settings"])
def test_a_study_with_code_needs_trust(work, value, place):
    folder, _ = work
    study = {"name": "s", "bundle": str(folder / "bundle"), "conditions": {"se": {}}}
    study[place] = {"se": {"epochs": value}} if place == "conditions" else {"epochs": value}
    (folder / "study.json").write_text(json.dumps(study))
    error = attempt("study", "study.json", "--output", "out")
    assert "--trust True" in str(error)
    assert not (folder / "canary").exists()
    assert not (folder / "out").exists()


def test_a_record_of_a_model_from_elsewhere_is_read_before_it_is_run(work):
    folder, _ = work
    (folder / "model").mkdir()
    (folder / "mine.json").write_text(json.dumps({"epochs": EVIL}))
    for more in ({"settings": {"intensity_range": [0, EVIL]}}, {"configuration": ["mine.json"]}):
        record = {"bundle": str(folder / "bundle"), "settings": {}, **more}
        (folder / "model/training.json").write_text(json.dumps(record))
        for command in (["evaluate"], ["explain"], ["predict", "--source", "images"]):
            error = attempt(command[0], "model", *command[1:])
            assert "harmless" in str(error)
    assert not (folder / "canary").exists()


def test_a_bundle_from_elsewhere_is_read_before_it_is_run(work, bundle):
    folder, _ = work
    (folder / "bundle").unlink()
    (folder / "bundle/configs").mkdir(parents=True)
    for file in (bundle / "configs").iterdir():
        (folder / "bundle/configs" / file.name).write_bytes(file.read_bytes())
    own = folder / "bundle/configs"
    changes = {
        "train.json": lambda text: text.replace('"seed": 0', f'"seed": "{EVIL}"'),
        "logging.conf": lambda text: text.replace("(sys.stdout,)", f"({EVIL[1:]},)"),
        "metadata.json": lambda text: json.dumps({**json.loads(text), "x": EVIL}),
    }
    for name, change in changes.items():
        before = (own / name).read_text()
        (own / name).write_text(change(before))
        assert change(before) != before
        error = attempt("train", "bundle", "--output_dir", "out")
        assert "harmless" in str(error)
        assert name in str(error)
        (own / name).write_text(before)
    assert not (folder / "canary").exists()
    assert isinstance(attempt("train", "bundle", "--output_dir", "out"), StopError)


@pytest.mark.parametrize("name", ["run#1", "$x", "@seed", "%seed", "a b;c'd\"", "run::1"])
def test_a_folder_of_any_name_is_that_folder(work, name):
    folder, seen = work
    assert isinstance(attempt("train", "bundle", "--output_dir", name), StopError)
    assert seen["output_dir"] == name
    meta = {"task": name, "_target_": "os.getpid"}
    words = ["--output", name, "--displayable_configs", json.dumps({**meta, "threshold": 0.5})]
    words += ["--meta", "_target_=os.getpid"]
    attempt("predict", "bundle", "--source", "images", *words)
    assert seen["output_dir"] == str(folder / name)
    assert seen["metadata"] == {"_target_": "os.getpid"}
    assert seen["displayable_configs"] == {**meta, "threshold": 0.5}


def test_monai_itself_refuses_a_path_with_a_hash(bundle):
    parser = ConfigParser({"bundle_root": "$own_root()", "output_dir": "run#1"})
    parser.globals["own_root"] = own_root
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("bundle_root")
    assert "reads # in a path as ::" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"train": {"augmentation": []}}, "replaced as a whole"),
        ({"+optimizer": {"zzz": 1}}, "zzz"),
        ({"loss": {"_target_": "torch.nn.Linear"}}, "in_features"),
        ({"device": "gpu"}, "gpu.*expected cpu, cuda"),
        ({"output_dir": True}, "expected a path"),
        ({"device": []}, "expected cpu, cuda"),
        ({"table": 3}, "the setting is a component"),
        ({"network_def": {}}, "'network_def' is a component: .* '_target_', such as .*Unet3"),
        ({"network_def": {"channels": 8}}, "is a component"),
        ({"network_def": None}, "is a component.*got None"),
        ({"loss": object()}, "object of Python"),
        ({"validate": {"dataset": {}}}, "replaced as a whole"),
    ],
)
def test_what_is_wrong_in_settings_is_one_line(bundle, given, told):
    with pytest.raises(ConfigError, match=told) as error:
        check_overrides([bundle / "configs" / "train.json"], given)
    assert "\n" not in str(error.value)


def test_trust_shows_what_runs_and_runs_it(work, caplog):
    assert isinstance(attempt("train", "bundle", "--seed", "$torch.os.getpid()"), ConfigError)
    error = attempt("train", "bundle", "--seed", "$torch.os.getpid()", "--trust", "True")
    assert isinstance(error, StopError)
    assert "torch.os.getpid" in caplog.text
    assert Path("seen").is_file()


@pytest.mark.parametrize("read", [MetadataSchema.load, ColumnMap.load, Study.load])
def test_a_file_without_an_end_is_refused(tmp_path, read):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(65 << 20)
    for path, why in (("/dev/zero", "no regular file"), (tmp_path / "large.json", "has 65 MB")):
        with pytest.raises(MetasegError, match=why):
            read(path)


def test_a_category_of_any_text_is_drawn_as_it_is():
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot(title="$b$", xlabel=r"$\frac{$")
        axes.plot([0, 1], label="$x")
        axes.legend()
        assert png(figure)
