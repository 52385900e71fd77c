import pytest
import torch

from metaseg_monai.networks import Unet3

UNSTEERED = ("none", "se")


@pytest.fixture(scope="session")
def small():
    def make(variant, spatial_dims=2, seed=0, **settings):
        torch.manual_seed(seed)
        settings = {"channels": 8, "levels": 2, "reduction": 1, "meta_features": 3, **settings}
        if variant in UNSTEERED:
            settings["meta_features"] = 0
        return Unet3(variant=variant, spatial_dims=spatial_dims, **settings)

    return make


@pytest.fixture(scope="session")
def batch():
    def draw(variant, size=(2, 1, 9, 14)):
        torch.manual_seed(1)
        return torch.rand(size), None if variant in UNSTEERED else torch.rand(size[0], 3)

    return draw
