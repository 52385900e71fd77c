"""Strong augmentation: components of MONAI that keep labels classes and replay by their seed."""

import json

import pytest
import torch
from monai.bundle import ConfigParser

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.training import ReplayDataset
from metaseg_monai.transforms import falsified_by, strong_augmentation

OF_IMAGES = {"RandGaussianNoised", "RandGaussianSmoothd", "RandScaleIntensityd"}


def made(components):
    """The transforms, by way of JSON text as in a configuration."""
    parser = ConfigParser({"augment": json.loads(json.dumps(components))})
    return parser.get_parsed_content("augment")


def item(*size, classes=4):
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (1, *[n // 4 for n in size]), generator=draw).float()
    label = torch.nn.functional.interpolate(label[None], size=size, mode="nearest")[0]
    return {"case": "a", "image": label / 4 + torch.rand(1, *size, generator=draw), "label": label}


@pytest.mark.parametrize("size", [(32, 24), (24, 24, 16)])
@pytest.mark.parametrize("elastic", [False, True])
def test_each_changes_the_image_and_leaves_labels_classes(size, elastic):
    components = strong_augmentation(len(size), size, elastic=elastic)
    for component, transform in zip(
        components, made([{**one, "prob": 1.0} for one in components]), strict=True
    ):
        transform.set_random_state(seed=3)
        given = item(*size)
        found = transform({key: one.clone() for key, one in given.items() if key != "case"})
        assert found["image"].shape == given["image"].shape
        assert found["image"].dtype == torch.float32
        assert not torch.equal(found["image"].as_tensor(), given["image"]), component
        assert set(found["label"].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
        moved = not torch.equal(torch.as_tensor(found["label"]), given["label"])
        assert moved == (component["keys"] == ["image", "label"])


def test_it_replays_by_seed_epoch_and_index():
    def items(seed):
        dataset = ReplayDataset(
            [item(32, 32)] * 2, augment=made(strong_augmentation(2, (32, 32))), seed=seed
        )
        keys = [(epoch, index) for epoch in range(6) for index in range(2)]
        return [torch.as_tensor(dataset[key]["image"]) for key in keys]

    first, again, other = items(0), items(0), items(1)
    assert all(map(torch.equal, first, again))
    assert sum(map(torch.equal, first, other)) < 2
    assert len({one.sum().item() for one in first}) == len(first)


def test_coarse_volumes_are_turned_about_their_coarse_axis():
    for axis in range(3):
        spacing = [1.0, 1.0, 1.0]
        spacing[axis] = 5.0
        component = strong_augmentation(3, (16, 16, 16), spacing)[0]
        (turn,) = made([{**component, "prob": 1.0}])
        turn.set_random_state(seed=0)
        level = torch.arange(16.0).reshape([16 if n == axis else 1 for n in range(3)])
        image = level.expand(16, 16, 16)[None].clone()
        found = turn({"image": image, "label": image.clone()})["image"].as_tensor()
        torch.testing.assert_close(found, image, atol=1e-3, rtol=0)
    assert strong_augmentation(3, (9, 9, 9))[0]["rotate_range"] == [[-0.5236, 0.5236]] * 3
    assert strong_augmentation(2, (9, 90))[0]["rotate_range"] == [[-0.2618, 0.2618]]


def test_what_does_not_fit_is_refused():
    for arguments in ((4, (8,) * 4), (2, (8, 8, 8)), (2, (8, 0)), (3, (8, 8, 8), (1.0, 1.0))):
        with pytest.raises(ConfigError):
            strong_augmentation(*arguments)
    for setting in ({"deviation": 0}, {"mirror": [2]}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            strong_augmentation(2, (8, 8), **setting)


def test_metadata_that_it_would_make_wrong_are_named():
    plain = {"provenance": "acquisition", "availability": "acquisition"}
    fields = [
        {"kind": "categorical", "name": "magnification", "values": ["10x", "20x"], **plain},
        {"kind": "categorical", "name": "laterality", "values": ["left", "right"], **plain},
        {"kind": "categorical", "name": "phase", "values": ["arterial", "venous"], **plain},
        {"kind": "continuous", "name": "age", "unit": "years", "range": [0, 100], **plain},
        {"kind": "continuous", "name": "pixel", "unit": "um/px", "range": [0.1, 1], **plain},
        {"kind": "continuous", "name": "energy", "unit": "keV", "range": [40, 140], **plain},
        {"kind": "categorical", "name": "eye", "values": ["Left", "Right"], **plain},
        *(
            {"kind": "continuous", "name": f"f{n}", "unit": unit, "range": [0, 9], **plain}
            for n, unit in enumerate(("mm^2", "microns", "mpp", "inch", "mm/pixel", "mg/dl"))
        ),
    ]
    sizes = ["magnification", "pixel", "f0", "f1", "f2", "f3", "f4"]
    expected = {"scaling": sizes, "mirroring": ["laterality", "eye"]}
    assert falsified_by(MetadataSchema(fields)) == expected
    names = [one["_target_"] for one in strong_augmentation(2, (8, 8), scaling=False, mirror=())]
    assert not {"RandZoomd", "RandFlipd"} & set(names)
    assert set(names) > OF_IMAGES


def test_only_whole_words_tell_sizes_and_sides():
    plain = {"provenance": "acquisition", "availability": "acquisition"}
    units = {"malaria": "1/ul", "bandwidth": "Hz", "slice_thickness": "mm", "contrast": "ml"}
    units |= {"tumourSize": "cells", "collateral_flow": "score", "body_side": "score"}
    units |= {"tumour_ml": "ml"}
    fields = [
        {"kind": "continuous", "name": name, "unit": unit, "range": [0, 9], **plain}
        for name, unit in units.items()
    ]
    told = falsified_by(MetadataSchema(fields), ["background", "left kidney", "cleft"])
    assert told["scaling"] == ["tumourSize", "tumour_ml"]
    assert told["mirroring"] == ["body_side", "left kidney"]
