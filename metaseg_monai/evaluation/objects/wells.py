"""What the objects of a well are together: how many, how dense, how large."""

from collections.abc import Sequence

import pandas as pd

PLACE = ("plate", "well", "group")
TYPICAL = (
    "area_px", "area_um2", "diameter_px", "diameter_um", "eccentricity", "solidity",
)  # fmt: skip
OF_IMAGE = ("imaged_px", "pixel_um", "_alone", "_area")  # of images, beside their names
UM2_PER_MM2 = 1e6
DECIMALS = 4


def well_summary(
    images: pd.DataFrame, objects: pd.DataFrame, by: Sequence[str] = ()
) -> pd.DataFrame:
    """Sum the objects of each well up, a row a well and class.

    `objects` and the densities count every object; `whole_objects` leaves out those that touch
    the image's border, and medians are over these whole ones alone, as a cut object has neither
    its size nor its shape. Images without any object count as images.

    Args:
        images: a row for each image and class: `case`, `plate`, `well`, `group`, `class`,
            `imaged_px`, `pixel_um` (NaN where unknown) and the columns `by`.
        objects: rows of `objects.csv`, with the same columns.
        by: further columns that keep rows apart, such as the task.

    Returns:
        `plate`, `well` and `group` (the group only where it is one), `by`, `class`, `images`,
        `objects`, `whole_objects`, `objects_per_image`, `imaged_mm2` and `objects_per_mm2` (empty
        where the pixel size of any image is unknown), `median_...`. Without a well the group
        stands for it.
    """
    keys = ["plate", "well", "_alone", *by, "class"]
    # an image belongs to its well, whatever its group; without a well it belongs to its group
    images = images.assign(_alone=images["group"].where(images["well"] == "", ""))
    wells = images.groupby(keys, sort=False)
    area = images["imaged_px"] * images["pixel_um"] ** 2 / UM2_PER_MM2
    known = images.assign(_area=area).groupby(keys, sort=False)["_area"]
    table = pd.DataFrame(
        {
            "group": wells["group"].agg(_only),
            "images": wells["case"].count(),
            "imaged_mm2": known.sum(min_count=1).where(known.count() == wells["case"].count()),
        }
    )
    placed = objects.merge(images[["case", "class", "_alone"]], on=["case", "class"])
    of_all = placed.groupby(keys, sort=False)
    of_whole = placed[placed["touches_border"] == 0].groupby(keys, sort=False)
    table["objects"] = of_all.size().reindex(table.index, fill_value=0)
    table["whole_objects"] = of_whole.size().reindex(table.index, fill_value=0)
    table["objects_per_image"] = table["objects"] / table["images"]
    table["objects_per_mm2"] = table["objects"] / table["imaged_mm2"]
    means = [
        name for name in objects.columns if name.startswith("mean_intensity") and name not in by
    ]
    for name in (*TYPICAL, *means):
        table[f"median_{name}"] = of_whole[name].median().reindex(table.index)
    first = [*PLACE, *by, "class", "images", "objects", "whole_objects", "objects_per_image"]
    table = table.reset_index().drop(columns="_alone")
    rest = [name for name in table.columns if name not in first]
    return table[[*first, *rest]].round(DECIMALS)


def _only(groups: pd.Series) -> str:
    """The one group of a well; empty where there are several."""
    return str(groups.iloc[0]) if groups.nunique() == 1 else ""
