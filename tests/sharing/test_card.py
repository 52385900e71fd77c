"""What a model's card says, under which licence weights go, and how they come back."""

import fnmatch
import inspect
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from metaseg_monai import from_pretrained
from metaseg_monai.bundle.configuration import facts as facts_of
from metaseg_monai.errors import CheckpointError, ConfigError, DataError, root_refusal
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.networks import Unet3
from metaseg_monai.sharing.card import card, model_card, read_model
from metaseg_monai.sharing.hub import push
from metaseg_monai.simulate.generated import write_generated
from metaseg_monai.tables import read_table
from metaseg_monai.tables.licenses import (
    data_license,
    license_table,
    may_share,
    statement,
    weights_license,
)
from metaseg_monai.training import read_weights, write_weights
from metaseg_monai.training.weights import write_fact
from tests.extras import needed

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
PLACES = re.compile(r"/(home|work|tmp|root|Users)/")
FIELD = {
    "kind": "continuous",
    "name": "size_mm",
    "unit": "mm",
    "range": [1, 100],
    "provenance": "label-derived",
    "availability": "pre-operative",
    "missing": "unknown",
}


@pytest.fixture
def model(tmp_path, bind):
    """Makes a model's folder: weights, the record of their images, and a bound evaluation."""

    def make(data=("generated",), case="scan{}", tested=True, images="unseen"):
        folder = tmp_path / "model"
        folder.mkdir()
        schema = MetadataSchema([FIELD])
        network = Unet3(schema, variant="me", channels=4, levels=2, unknown_trained=True)
        sizes = {"variant": "me", "channels": 4, "levels": 2, "unknown_trained": True}
        target = "metaseg_monai.networks.Unet3"
        facts = {
            "variant": "me",
            "network": {"_target_": target, "schema": "@schema", **sizes},
            "schema": schema.to_dict(),
            "unknown_trained": True,
            "data": [one if isinstance(one, dict) else statement(one) for one in data],
        }
        write_weights(folder / "model.pt", network, facts)
        rows = [[f"{n}", "train", f"g{n}", case.format(f"{n:05d}")] for n in range(3)]
        columns = ["pixels", "split", "group", "case"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "trained_on.csv", index=False)
        if tested:
            found = [
                (f"c{n}", f"c{n}", "test", mode, "x", 1, tp, 1, 10 - tp, 50)
                for mode, tp in (("normal", 9), ("missing", 5))
                for n in range(6)
            ]
            pd.DataFrame(found, columns=COUNT_COLUMNS).to_csv(folder / "counts.csv", index=False)
            bind(folder, modes=("normal", "missing"), images=images)
        return folder

    return make


def front_matter(text):
    head = text.split("---\n")[1]
    return {key: json.loads(value) for key, value in (x.split(": ", 1) for x in head.splitlines())}


def test_a_card_says_what_facts_and_bound_results_say(model):
    folder = model()
    assert "licence of the weights: apache-2.0" in card(folder)
    text = (folder / "README.md").read_text()
    known = front_matter(text)
    assert (known["library_name"], known["license"]) == ("monai", "apache-2.0")
    assert (known["datasets"], known["metrics"]) == (["generated"], ["f1"])
    (found,) = known["model-index"][0]["results"]
    assert found["metrics"][0]["value"] == round(2 * 54 / (2 * 54 + 6 + 6), 4)
    assert re.search(r"interval 0\.\d+ to 0\.\d+", found["metrics"][1]["name"])
    assert "gives away a part of the answer" in text  # derived from labels
    assert "with true metadata: 0.900; metadata unknown: 0.625" in text
    assert "none of their images was trained on" in text
    assert read_weights(folder / "model.pt")[1]["weights_sha256"] in text
    assert not PLACES.search(text)
    assert "scan0000" not in text  # no names of patients
    assert card(folder)  # over its own
    (folder / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="written by somebody else"):
        card(folder)


def test_a_card_names_values_that_no_training_image_had(model):
    folder = model(tested=False)
    assert "No training image had" not in model_card(read_model(folder))
    write_fact(folder / "model.pt", "untrained", {"task": ["ring", "cross"]})
    assert "No training image had 'task=ring', 'task=cross'" in model_card(read_model(folder))


def test_results_of_other_weights_never_stand_on_a_card(model):
    folder = model(tested=True)
    write_weights(folder / "model.pt", nn.Linear(1, 1), {"data": [statement("generated")]})
    with pytest.raises(DataError, match="other weights"):
        card(folder)
    text = model_card(read_model(_without_results(folder)))
    assert "Not tested" in text
    assert "model-index" not in front_matter(text)


def _without_results(folder):
    for name in ("evaluation.json", "counts.csv"):
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\0", b""])
def test_a_damaged_record_of_images_is_refused(model, content):
    folder = model()
    (folder / "trained_on.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"trained_on.csv: damaged, expected the columns"):
        card(folder)
    assert not (folder / "README.md").exists()


def test_a_record_of_other_images_than_the_training_saw_is_refused(model):
    folder = model(data=(), tested=False)
    told = {"file": "trained_on.csv", "sha256": "0" * 64, "images": 3}
    write_fact(folder / "model.pt", "trained_on", told)
    with pytest.raises(DataError, match=r"trained_on.csv: not the record of the images"):
        card(folder, data="Our cohort", data_license="cc-by-4.0")


def test_images_of_which_nobody_knows_are_told(model):
    text = model_card(read_model(model(images="unknown")))
    assert "whether their images were trained on is not known" in text


@pytest.mark.parametrize(
    ("data", "license_id"),
    [
        (["generated"], "apache-2.0"),
        (["dsb2018"], "apache-2.0"),
        (["kits"], "cc-by-nc-sa-4.0"),
        (["generated", "kits"], "cc-by-nc-sa-4.0"),
        (["kits", {"data": "ours", "license": "gpl-3.0"}], "other"),
        ([{"data": "ours", "license": "mit"}, "generated"], "apache-2.0"),
        (["concrete-cracks"], "cc-by-4.0"),
        (["generated", {"data": "ours", "license": None}], None),
        (["deepcrack"], None),
        ([], None),
    ],
)
def test_weights_have_the_licence_that_their_data_demand(model, data, license_id):
    folder = model(data, tested=False)
    found = read_model(folder)
    assert found.license == license_id
    assert front_matter(model_card(found)).get("license") == license_id
    if license_id is None:
        with pytest.raises(ConfigError, match=r"is not stated.*--data_license"):
            push(folder, "lab/x")
    else:
        assert push(folder, "lab/x").license == license_id


def test_kits_is_never_apache(model, tmp_path):
    folder = model(["kits"], case="case_{}", tested=False)
    with pytest.raises(ConfigError, match=r"kits is under cc-by-nc-sa-4.0, not apache-2.0"):
        card(folder, data="kits", data_license="apache-2.0")
    with pytest.raises(ConfigError, match="was trained on kits"):
        card(folder, data="ours", data_license="apache-2.0")
    weights = folder / "model.pt"
    state, facts = read_weights(weights)
    facts = {key: value for key, value in facts.items() if key not in ("data", "weights_sha256")}
    network = Unet3(MetadataSchema([FIELD]), variant="me", channels=4, levels=2)
    write_weights(weights, network, facts)  # of an earlier release, which states nothing
    with pytest.raises(ConfigError, match="named as those of KiTS"):
        card(folder, data="ours", data_license="apache-2.0")
    card(folder, data="kits")
    assert read_model(folder).license == "cc-by-nc-sa-4.0"
    assert read_weights(weights)[0].keys() == state.keys()


def test_data_whose_owners_state_no_licence_stay_named(model):
    folder = model(["deepcrack"], tested=False)
    text = model_card(read_model(folder))
    assert "state no licence (https://github.com/yhlleo/DeepCrack): **no licence is stated" in text
    with pytest.raises(ConfigError, match="deepcrack, whose owners state no licence"):
        card(folder, data="ours", data_license="mit")
    card(folder, data="deepcrack", data_license="other")
    assert read_model(folder).data == [{"data": "deepcrack", "license": "other"}]


def test_a_statement_is_kept_in_the_weights_and_never_changed(model):
    folder = model([], tested=True)
    card(folder, data="Our cohort", data_license="CC-BY-4.0")
    assert read_model(folder).data == [{"data": "Our cohort", "license": "cc-by-4.0"}]
    assert "cc-by-4.0" in (folder / "README.md").read_text()  # and its results are still bound
    with pytest.raises(ConfigError, match="was trained on Our cohort"):
        card(folder, data="Our cohort", data_license="mit")
    with pytest.raises(ConfigError, match=r"did you mean 'cc-by-4.0'"):
        statement("ours", "cc-by-4")


def test_for_research_only_is_not_pushed(model):
    folder = model(["crackforest"], tested=False)
    assert "**may not be shared**; commercial use: no" in model_card(read_model(folder))
    with pytest.raises(ConfigError, match=r"crackforest \(research-only\), which lets nothing"):
        push(folder, "lab/x")


def test_what_may_not_be_shared_is_not_pushed(model):
    folder = model([{"data": "ours", "license": "cc-by-nc-nd-4.0"}], tested=False)
    with pytest.raises(ConfigError, match="lets nothing that is made of it be shared"):
        push(folder, "lab/x")


class Hub:
    """Stands in for huggingface_hub 2.4: the signatures are its own, the hub is a folder."""

    def __init__(self, place):
        self.place, self.made, self.is_private, self.fails = place, [], True, None
        self.HfApi = lambda: self

    def create_repo(
        self, repo_id: str, *, token=None, private=None, repo_type=None, exist_ok=False
    ):
        if self.fails is not None:
            raise self.fails
        self.made.append((repo_id, private, repo_type, exist_ok))

    def repo_info(self, repo_id: str, *, revision=None, repo_type=None):
        return SimpleNamespace(private=self.is_private)

    def list_repo_files(self, repo_id: str, *, revision=None, repo_type=None):
        root = self.place / repo_id
        return [one.relative_to(root).as_posix() for one in root.rglob("*") if one.is_file()]

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path,
        path_in_repo=None,
        commit_message=None,
        repo_type=None,
        revision=None,
        delete_patterns=None,
    ):
        root = self.place / repo_id
        for file in [one for one in root.rglob("*") if one.is_file()]:
            name = file.relative_to(root).as_posix()
            if any(fnmatch.fnmatch(name, pattern) for pattern in delete_patterns):
                file.unlink()
        for file in Path(folder_path).rglob("*"):
            if file.is_file():
                copy = self.place / repo_id / file.relative_to(folder_path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str, *, revision=None, allow_patterns=None):
        if not (self.place / repo_id).is_dir():
            raise OSError("404 Client Error. Repository Not Found")
        return str(self.place / repo_id)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


def test_a_model_goes_to_the_hub_and_comes_back(model, hub, tmp_path, monkeypatch):
    folder = model()
    (folder / "checkpoint.pt").write_bytes(b"0")
    shown = push(folder, "lab/x")
    assert hub.made == []  # a dry run by itself
    assert not hub.place.exists()
    assert "nothing was sent" in str(shown)
    sent = push(folder, "lab/x", upload=True)
    assert hub.made == [("lab/x", True, "model", True)]
    files = sorted(one.name for one in (hub.place / "lab/x").rglob("*") if one.is_file())
    assert files == sorted(shown.files) == ["README.md", "model.json", "model.pt"]
    assert sent.url == "https://hub/lab/x/commit/1"
    monkeypatch.chdir(tmp_path)
    back = from_pretrained("lab/x")
    here = from_pretrained(folder)
    meta = torch.from_numpy(back.schema.encode({"size_mm": 40}))[None]
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(back.network(image, meta), here.network(image, meta))
    assert back.facts == here.facts
    with pytest.raises(ConfigError, match=r"no folder lab/other.*404"):
        from_pretrained("lab/other")
    with pytest.raises(ConfigError, match="expected OWNER/NAME"):
        push(folder, "x")


def test_files_of_an_earlier_model_do_not_stay_on_the_hub(model, hub):
    old = hub.place / "lab/x"
    for name in ("models/model.ts", "model.json", ".gitattributes", "samples/1.tif", "LICENSE"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text("old")
    sent = push(model(), "lab/x", upload=True)
    assert sent.removed == ("models/model.ts",)
    assert "taken away, of an earlier push: models/model.ts" in str(sent)
    assert not (old / "models/model.ts").exists()
    assert (old / "samples/1.tif").exists()  # of a bundle, which this is not
    assert (old / "LICENSE").exists()
    assert (old / "model.json").read_text() != "old"
    assert (old / ".gitattributes").read_text() == "old"


def test_a_public_repository_is_not_taken_for_a_private_one(model, hub):
    folder, hub.is_private = model(), False
    with pytest.raises(ConfigError, match=r"lab/x is there, and public.*--private False"):
        push(folder, "lab/x", upload=True)
    assert not hub.place.exists()
    assert push(folder, "lab/x", upload=True, private=False).url


def test_a_hub_that_is_not_reached_refuses(model, hub):
    class TransportError(Exception):
        """As httpx raises it: of no kind that Python has."""

    hub.fails = TransportError("Name or service not known")
    with pytest.raises(
        ConfigError, match=r"TransportError: Name or service.*check the name, the n"
    ):
        push(model(), "lab/x", upload=True)


def test_a_bundle_goes_without_data_results_and_names_of_images(model, hub):
    source = model()
    home = source.parent / "bundle"
    own = ("configs/metadata.json", "docs/README.md", "requirements.txt")
    private = (
        *("data/table.csv", "eval/counts.csv", "samples/table.csv", "samples/images/1.tif"),
        *("configs/.env", "docs/private/patients.csv", "docs/patients.csv"),
    )
    for name in (*own, *private):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("{}")
    (home / "models").mkdir()
    for name in ("model.pt", "model.json", "trained_on.csv"):
        (home / "models" / name).write_bytes((source / name).read_bytes())
    (home / "models/train.json").write_text("{}")  # tells where things lay on this machine
    assert sorted(push(home, "lab/x").files) == [
        *("README.md", "configs/metadata.json", "docs/README.md"),
        *("models/model.json", "models/model.pt", "requirements.txt"),
    ]
    for name in ("samples/images/1.tif", "x_code_0a1b/net.py", "docs/private/p.csv", "notes.md"):
        (hub.place / "lab/x" / name).parent.mkdir(parents=True, exist_ok=True)
        (hub.place / "lab/x" / name).write_text("old")
    push(home, "lab/x", upload=True)
    left = {one.name for one in (hub.place / "lab/x").rglob("*") if one.is_file()}
    assert "notes.md" in left
    assert not left & {"1.tif", "net.py", "p.csv"}
    (home / "docs/other.md").symlink_to(source / "counts.csv")
    with pytest.raises(ConfigError, match="is a link"):
        push(home, "lab/x")


def test_without_the_client_of_the_hub_the_extra_is_named(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"metaseg-monai\[hub\]"):
        push(model(tested=False), "lab/x", upload=True)
    with pytest.raises(ConfigError, match="no such folder"):
        from_pretrained(tmp_path / "nothing")


def test_the_stand_in_is_called_as_the_real_client_is(model, tmp_path):
    real = needed("huggingface_hub")
    for name in ("create_repo", "repo_info", "list_repo_files", "upload_folder"):
        own = inspect.signature(getattr(Hub, name)).parameters
        theirs = inspect.signature(getattr(real.HfApi, name)).parameters
        assert set(own) <= set(theirs)
        assert all(own[one].kind == theirs[one].kind for one in own)
    assert set(inspect.signature(Hub.snapshot_download).parameters) <= {
        "self",
        *inspect.signature(real.snapshot_download).parameters,
    }
    folder = model()
    card(folder)
    read = real.ModelCard.load(folder / "README.md").data
    assert (read.license, read.library_name) == ("apache-2.0", "monai")
    assert read.eval_results[0].metric_value == 0.9


def test_a_network_that_would_run_code_is_refused(model, tmp_path):
    network = {"_target_": "os.system", "command": f"touch {tmp_path}/ran"}
    write_weights(tmp_path / "model.pt", nn.Linear(1, 1), {"network": network})
    with pytest.raises(ConfigError, match=r"os\.system"):
        from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()
    write_weights(tmp_path / "model.pt", nn.Linear(1, 1), {"network": "$print(1)"})
    with pytest.raises(CheckpointError, match="does not tell which network"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (
            {"network": {"_target_": "torch.nn.Linear", "in_features": "x", "out_features": 1}},
            "built",
        ),
        ({"network": {"_target_": "torch.nn.Linear", "wide": 1}}, "unexpected keyword"),
        ({"network": {"_target_": "torch.nn.Linear"}, "refers_to": [1]}, "refers_to"),
        ({"network": {"_target_": "torch.nn.Linear"}, "data": "x"}, r"damaged facts \(data\)"),
    ],
)
def test_facts_that_no_network_can_be_built_of_are_refused(tmp_path, facts, told):
    write_weights(tmp_path / "model.pt", nn.Linear(1, 1), facts)
    with pytest.raises(CheckpointError, match=told):
        from_pretrained(tmp_path, trust=True)


def test_data_without_a_name_or_licence_are_refused(model):
    folder = model([], tested=False)
    for name in ("", " ", "a\nb"):
        with pytest.raises(ConfigError, match="expected a name of the data"):
            card(folder, data=name, data_license="mit")
    with pytest.raises(
        ConfigError, match=r"licence of ours is not stated; give it \(--data_license"
    ):
        card(folder, data="ours")


def test_weights_that_are_not_those_of_the_facts_are_refused(model):
    folder = model(tested=False)
    state = torch.load(folder / "model.pt", weights_only=True)
    next(iter(state.values())).add_(1e-3)
    torch.save(state, folder / "model.pt")
    with pytest.raises(CheckpointError, match="not the weights these facts describe"):
        from_pretrained(folder)


# The table of licences, and who says under which one data are.


def test_every_bundle_says_of_its_data_what_the_table_says():
    known = license_table()
    for bundle in sorted(BUNDLES.glob("*_*/configs/metadata.json")):
        root = bundle.parents[1]
        text = " ".join((root / "docs/data_license.txt").read_text().split())
        about = json.loads(bundle.read_text())["data_source"]
        named = {key for key in known["data"] if key in ("generated", "kits") and (
            key == "generated" or "kits" in root.name
        )}  # fmt: skip
        for key in named:
            assert all(word in text for word in known["data"][key]["told_by"]), (root.name, key)
        assert "Apache-2.0" in text
        assert "metaseg_monai" in about
        assert ("CC BY-NC-SA 4.0" in about) == ("kits" in named)
    for key, facts in known["data"].items():
        assert statement(key)["license"] == facts["license"]
        assert may_share([statement(key)]) == (key not in ("crackforest", "deepcrack"))
    assert weights_license([statement("kits")]) == "cc-by-nc-sa-4.0"


def test_data_say_their_licence_and_training_takes_it_over(tmp_path, folder):
    write_generated(tmp_path / "made", {"a": 1}, lambda place: (place / "x").touch())
    assert data_license(tmp_path / "made") == [statement("generated")]
    place, _ = folder
    table = read_table(place)
    assert "data" not in facts_of_table(table)
    (place / "license.json").write_text('{"data": "ours", "license": "cc-by-4.0"}')
    assert facts_of_table(table)["data"] == [{"data": "ours", "license": "cc-by-4.0"}]
    (place / "license.json").write_text('{"data": "KiTS23", "license": "mit"}')
    with pytest.raises(DataError, match=r"is under cc-by-nc-sa-4.0"):
        facts_of_table(table)
    (place / "license.json").unlink()
    (place / "kits.json").write_text("[]")
    assert facts_of_table(table)["data"] == [statement("kits")]


def facts_of_table(table):
    config = {"table": table, "network_def": 1, "preprocessing": [], "window_inferer": None}
    parser = ConfigParser({**config, "facts": "$f(@table)"}, globals={"f": facts_of})
    try:
        return parser.get_parsed_content("facts")
    except RuntimeError as error:  # MONAI's, around ours
        raise root_refusal(error) or error from None
