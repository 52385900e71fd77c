"""Every gate, network and mechanism does what `conformance` says, untouched.

Here: every variant on Unet3, and sme on three networks of MONAI. The whole matrix is slow.
"""

import pytest
import torch

from metaseg_monai.networks import TABLE, VARIANTS, Unet3, condition, reads_metadata
from tests.extras import needed
from tests.networks import conformance
from tests.networks.conditioned import NEEDS_EINOPS, NETWORKS

FAST = ("BasicUNet", "DynUNet", "SegResNet")
SCRIPTED = (  # of the others MONAI's own code is none that TorchScript takes
    *("AttentionUnet", "BasicUNet", "DynUNet", "DynUNet deep", "DynUNet residual", "FlexibleUNet"),
    *("HighResNet", "SegResNet", "SegResNetDS", "UNETR", "UNet", "UNet residual", "VNet"),
)
IN_PARTS = (
    "BasicUNet",
    "FlexibleUNet",
    "SwinUNETR",
)  # torch.compile takes the bare network in several graphs
NEVER_NEUTRAL = ("film-ivadomed", "weight-noise")
MEMBERS = [name for name in VARIANTS if name != "none"]
# PyTorch deprecates TorchScript and its exporter, which others still need
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning:torch",
    "ignore::torch.jit.TracerWarning",
)


class Case:
    """A network to build, bare or with a variant, and the sizes of images that it takes."""

    def __init__(self, variant, network=None, dims=2):
        self.variant, self.network, self.dims = variant, network, dims
        odd = (17, 30) if dims == 2 else (9, 6, 7)
        self.size = (2, 1, *([32] * dims if network else odd))
        self.other = (3, 1, *(edge + (32 if network else 3) for edge in self.size[2:]))
        if network == "SwinUNETR":
            self.size = (2, 1, 64, 64, 32)[: dims + 2]
        if network == "UNETR" or (network == "SwinUNETR" and dims == 3):  # exported for one size
            self.other = (3, *self.size[1:])

    def bare(self):
        torch.manual_seed(0)
        if self.network is None:
            return Unet3(variant="none", channels=8, levels=2, spatial_dims=self.dims)
        return NETWORKS[self.network](self.dims)

    def build(self, *, dummy=False, **settings):
        variant = self.variant + "-dummy" * dummy
        if "schema" not in settings and reads_metadata(variant):
            settings["meta_features"] = 3
        settings |= {"variant": variant, "reduction": 1}
        if self.network is None:
            torch.manual_seed(0)
            size = {"channels": 8, "levels": 2, "spatial_dims": self.dims}
            return Unet3(**size, **settings)
        bare = self.bare()
        if self.variant in NEVER_NEUTRAL:
            settings["start"] = "paper"
        torch.manual_seed(4)  # with which no gate has dead neurons only
        return condition(bare, **settings)

    def __repr__(self):
        return f"{self.network or 'Unet3'} {self.dims}D {self.variant}".replace(" ", "-")


UNET3 = [Case(variant) for variant in VARIANTS]
OF_MONAI = [Case("sme", network) for network in FAST]
slow = pytest.mark.slow
REST = [
    *(Case(variant, None, 3) for variant in VARIANTS),
    *(Case(variant, network) for network in FAST for variant in MEMBERS if variant != "sme"),
    *(Case(variant, network, 3) for network in FAST for variant in MEMBERS),
    *(Case("sme", network, d) for network in NETWORKS if network not in FAST for d in (2, 3)),
]


def every(cases, rest=REST, where=lambda case: True):
    marked = [pytest.param(case, id=repr(case)) for case in cases if where(case)]
    later = [pytest.param(case, id=repr(case), marks=slow) for case in rest if where(case)]
    return pytest.mark.parametrize("case", [*marked, *later])


@pytest.fixture(autouse=True)
def _has_what_it_needs(request):
    case = request.getfixturevalue("case")
    if case.network in NEEDS_EINOPS:
        needed("einops")


@every([*UNET3, *OF_MONAI])
def test_shape_and_gradient(case):
    conformance.check_shape_and_gradient(case.build, case.size)


@every([*UNET3, *OF_MONAI])
def test_rows_are_independent(case):
    conformance.check_rows_are_independent(case.build, case.size)


@every([*UNET3, *OF_MONAI], where=lambda case: reads_metadata(case.variant))
def test_metadata_decide(case):
    conformance.check_metadata_decide(case.build, case.size)


def is_neutral(case):
    """What starts as the bare network: all that `condition` makes, and what is neutral always."""
    always = ("none", "adaptive-norm", "low-rank", "hyper")
    return case.variant not in NEVER_NEUTRAL if case.network else case.variant in always


@every([*UNET3, *OF_MONAI], where=is_neutral)
def test_neutral_start(case):
    conformance.check_neutral(case.build, case.bare, case.size)


@every([case for case in UNET3 if case.variant not in ("none", *NEVER_NEUTRAL)], [])
def test_neutral_start_of_unet3(case):
    conformance.check_neutral(lambda: case.build(start="neutral"), case.bare, case.size)


@every([*UNET3, *OF_MONAI])
def test_refusals(case):
    conformance.check_refusals(case.build, case.size)


@every([*UNET3, *OF_MONAI], where=lambda case: reads_metadata(case.variant))
def test_unknown_and_dummy(case):
    conformance.check_unknown_and_dummy(case.build, case.size)


@every([*UNET3, *OF_MONAI])
def test_meta_tensors(case):
    conformance.check_meta_tensors(case.build, case.size)


@every([*UNET3, *OF_MONAI])
def test_state_round_trip(case, tmp_path):
    conformance.check_state_round_trip(case.build, case.size, tmp_path / "model.pt")


@every([*UNET3, *OF_MONAI], where=lambda case: case.network in (None, *SCRIPTED))
def test_scripted(case):
    conformance.check_scripted(case.build, case.size)


@every([], [*UNET3, *OF_MONAI, *REST])
def test_compiled(case):
    conformance.check_compiled(case.build, case.size, whole=case.network not in IN_PARTS)


@every([*UNET3, *OF_MONAI])
def test_onnx(case):
    needed("onnxruntime")
    conformance.check_onnx(case.build, case.size, case.other)


@every([Case(variant) for variant in TABLE], [])
def test_each_member_tells_whether_it_reads_metadata(case):
    assert bool(case.build().meta_features) == TABLE[case.variant].reads_meta
