import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import MetaInput

IMAGE = torch.zeros(3, 1, 4, 4)


def test_given_metadata_pass_unchanged():
    meta = torch.rand(3, 2)
    assert MetaInput(meta_features=2)(meta, IMAGE) is meta
    assert MetaInput(meta_features=2, unknown_meta=[0.0, 1.0])(meta, IMAGE) is meta


def test_none_stands_for_the_unknown_vector_only_where_there_is_one():
    entries = MetaInput(meta_features=2, unknown_meta=[0.25, 1.0])(None, IMAGE)
    assert entries.tolist() == [[0.25, 1.0]] * 3
    with pytest.raises(ValueError, match="meta=None is accepted only"):
        MetaInput(meta_features=2)(None, IMAGE)


def test_no_metadata_for_a_network_without():
    assert MetaInput(meta_features=0)(None, IMAGE) is None
    with pytest.raises(ValueError, match="takes no metadata"):
        MetaInput(meta_features=0)(torch.rand(3, 1), IMAGE)


def test_the_unknown_vector_is_no_weight():
    door = MetaInput(meta_features=2, unknown_meta=[0, 1])
    assert door.state_dict() == {}
    assert door.to(torch.float64).unknown.dtype == torch.float64


@pytest.mark.parametrize(
    ("width", "unknown", "message"),
    [
        (-1, None, "meta_features must be 0 or more, got -1"),
        (2, [0.0], "meta_features=2 entries, got 1"),
        (0, [], "meta_features=0 entries"),
        (1, [float("nan")], "must be finite"),
    ],
)
def test_wrong_settings_are_refused(width, unknown, message):
    with pytest.raises(ConfigError, match=message):
        MetaInput(meta_features=width, unknown_meta=unknown)
