"""What microscopy bundles add to the replay of the zoo: settings that work together."""

import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser
from monai.transforms import Compose

CORRECTED = {  # light and plate, as docs/bundles.md has them
    "preprocessing": [
        {"_target_": "metaseg_monai.transforms.LoadCased", "in_channels": "@in_channels"},
        "@flat_field",
        {
            "_target_": "metaseg_monai.transforms.ScaleIntensityBy",
            "by": "plate",
            "statistics": "@plates",
        },
        "@encode",
    ],
    "flat_field": {
        "_target_": "metaseg_monai.transforms.FlatFieldd",
        "reference": "$@dataset_dir + '/flat.tif'",
    },
    "scale": {
        "_target_": "metaseg_monai.transforms.ScaleIntensityBy",
        **{"by": "plate", "statistics": "@plates"},
    },
    "plates": {
        "_target_": "metaseg_monai.transforms.intensity_statistics",
        **{"items": "$@table.rows", "by": "plate", "flat_field": "@flat_field"},
    },
}
NAMES = [
    "seven_lines_nuclei_segmentation",
    "magnification_nuclei_segmentation",
    "heterogeneous_domains_segmentation",
    "annotation_styles_nuclei_segmentation",
    "nuclei_anomalies_segmentation",
]


@pytest.fixture
def parsed(copy_bundle, tmp_path):
    def parse(name, *configs, **overrides):
        bundle = copy_bundle(name)
        parser = ConfigParser()
        parser.read_config(bundle.configs("train", *configs))
        small = {k: v for k, v in bundle.tiny("train").items() if k != "table#path"}
        settings = {"bundle_root": str(bundle.root), **small, **overrides}
        for key, value in settings.items():
            parser[key] = value
        return parser

    return parse


def vignetted(folder):
    """Two plates of one bright and one dark lamp, seen through the same vignette."""
    (folder / "images").mkdir(parents=True)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    light = 1.2 - 0.4 * (x**2 + y**2)
    rows = ["image,label,cell_line,plate,group,split"]
    random = np.random.default_rng(0)
    for number in range(6):
        lamp = (8000, 20000)[number % 2]
        image = (lamp * light * random.uniform(0.5, 1.0, (32, 32))).astype(np.uint16)
        tifffile.imwrite(folder / f"images/{number}.tif", image)
        tifffile.imwrite(folder / f"images/{number}_label.tif", np.eye(32, dtype=np.uint8))
        split = ("train", "val", "test")[number // 2]
        name = f"images/{number}"
        rows.append(f"{name}.tif,{name}_label.tif,HeLa,p{number % 2},w{number},{split}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    tifffile.imwrite(folder / "flat.tif", (10000 * light).astype(np.uint16))
    return folder


def test_plates_are_scaled_by_what_the_flat_field_leaves(parsed, tmp_path):
    folder = vignetted(tmp_path / "plates")
    parser = parsed(
        "seven_lines_nuclei_segmentation",
        dataset_dir=str(folder),
        **CORRECTED,
    )
    load = Compose(parser.get_parsed_content("train#preprocessing"))
    for item in parser.get_parsed_content("cases").items("train"):
        image = load(item)["image"]
        assert 0 <= np.percentile(image, 2) < 0.1  # as wide as the plate's own pixels,
        assert 0.9 < np.percentile(image, 98) <= 1  # on the dark plate and on the bright one
        rim, middle = image[0, :4].mean(), image[0, 14:18].mean()
        assert abs(rim - middle) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_full_size_data_fill_the_crop(copy_bundle, name):
    bundle = copy_bundle(name)
    simulated = bundle.read("simulate_full_size")
    sizes = [
        n for n in ("paper_size", "thesis_size") if (bundle.root / f"configs/{n}.json").is_file()
    ]
    assert sizes
    for full in map(bundle.read, sizes):
        assert simulated["size"] >= 2 * full["roi_size"][0]
        assert full["roi_size"][0] % full["window_inferer"]["align"] == 0
        assert full["dataset_dir"].endswith(simulated["output"].removeprefix("..") + "'")
