import json

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.sharing import check_overrides

CONFIG = {
    "epochs": 3,
    "train": {
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": "@epochs"},
        "loader": {"_target_": "torch.utils.data.DataLoader", "dataset": "@data_dir"},
    },
    "run": ["$@train#trainer.run()"],
}


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(CONFIG))
    return [path]


@pytest.mark.parametrize(
    "key",
    [
        "epochs",
        "train#trainer#max_epochs",
        "train::trainer::max_epochs",
        "data_dir",  # named by a reference only
        "train#loader#batch_size",  # an argument that the target takes
        "train#trainer#amp",
        "run",
        "meta_file",  # a parameter of the workflow
    ],
)
def test_accepted(files, key):
    check_overrides(files, {key: 1})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "epochs"),
        ("max_epochs", "train#trainer#max_epochs"),
        ("train#trainer#max_epoch", "max_epochs"),
        ("train#loader#batchsize", "batch_size"),
        ("zzz", "train.json"),
    ],
)
def test_misspelt_is_refused_with_a_suggestion(files, key, hint):
    with pytest.raises(ConfigError, match=hint):
        check_overrides(files, {key: 1})


def test_all_problems_in_one_message(files):
    with pytest.raises(ConfigError, match=r"'epoch'.*'runn'"):
        check_overrides(files, {"epoch": 1, "runn": 2})


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no configuration file .*none\.json"):
        check_overrides([tmp_path / "none.json"], {})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        check_overrides([tmp_path / "bad.json"], {})
