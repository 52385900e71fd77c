import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.outputs import each_tensor, map_tensors

ONE, TWO = torch.tensor([1.0]), torch.tensor([2.0])


def test_each_form_is_kept():
    assert map_tensors(torch.neg, ONE).item() == -1
    assert [t.item() for t in map_tensors(torch.neg, [ONE, TWO])] == [-1, -2]
    nested = map_tensors(torch.neg, {"a": ONE, "b": (ONE, TWO)})
    assert nested["b"][1].item() == -2
    assert [t.item() for t in each_tensor({"a": ONE, "b": [ONE, TWO]})] == [1, 1, 2]


def test_other_outputs_are_refused():
    with pytest.raises(ConfigError, match="returned str"):
        map_tensors(torch.neg, {"a": "logits"})
