"""Where a slice lies: its volume, its plane, and the size of its voxels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from metaseg_monai.metadata.quantities import read_number

VOLUME_COLUMNS = ("volume", "plane", "planes")
SPACING_COLUMNS = ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm")
PLACE_COLUMNS = (*VOLUME_COLUMNS, *SPACING_COLUMNS)


def place_of(
    cells: Mapping[str, str], names: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Read where a row's image lies in its volume, as far as the table says it.

    Args:
        cells: cell by column.
        names: columns named otherwise than in `PLACE_COLUMNS`, by those names.

    Returns:
        `volume` (str), `plane` and `planes` (int) where the table has them, `spacing_mm` (z, y, x)
        where it has at least the last two of its columns, filled; and problems in words.

    >>> place_of({"volume": "a", "plane": "3", "planes": "9", "spacing_z_mm": "5",
    ...           "spacing_y_mm": "0.8", "spacing_x_mm": "0.8"}, {})[0]["spacing_mm"]
    (5.0, 0.8, 0.8)
    >>> place_of({"image": "a.png"}, {})
    ({}, [])
    """
    given = {
        name: cells[names.get(name, name)].strip()
        for name in PLACE_COLUMNS
        if names.get(name, name) in cells
    }
    place: dict[str, Any] = {}
    problems = []
    if "volume" in given and "plane" in given:  # a column "volume" alone may mean anything
        missing = [name for name in PLACE_COLUMNS if not given.get(name)]
        if missing:
            return {}, [f"the place in its volume lacks {', '.join(missing)}; give the columns"]
        plane, planes = _index(given["plane"]), _index(given["planes"])
        if plane is None or planes is None or not plane < planes:
            problems.append(
                f"plane {given['plane']!r} of {given['planes']!r} planes; expected whole numbers, "
                "planes counted from 0"
            )
        place = {"volume": given["volume"], "plane": plane, "planes": planes}
    if given.get("spacing_y_mm") or given.get("spacing_x_mm"):
        given.setdefault("spacing_z_mm", "1")  # of a single image it has no meaning
        sides = [read_number(given.get(name, "")) for name in SPACING_COLUMNS]
        if any(side is None or side <= 0 for side in sides):
            told = ", ".join(f"{name} {given.get(name)!r}" for name in SPACING_COLUMNS)
            problems.append(f"{told}: expected voxel sizes above 0 mm")
        place["spacing_mm"] = tuple(sides)
    return ({}, problems) if problems else (place, [])


def disagreements(rows: Sequence[tuple[Mapping[str, Any], str, str, int]]) -> list[str]:
    """Problems of volumes of several groups, numbers of planes or spacings, or of double planes.

    Args:
        rows: place, group, image and number of each row.
    """
    problems = []
    first: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    seen: dict[tuple[str, int], tuple[str, int]] = {}
    for place, group, image, number in rows:
        if "volume" not in place:
            continue
        name = place["volume"]
        told = {"group": group, "planes": place["planes"], "spacing_mm": place["spacing_mm"]}
        for what, value in told.items():
            first[name][what].setdefault(str(value), number)
        other, earlier = seen.setdefault((name, place["plane"]), (image, number))
        if other != image:
            problems.append(
                f"plane {place['plane']} of volume {name!r} has two images: "
                f"{other} (row {earlier}) and {image} (row {number}); leave one out"
            )
    for name, of_volume in first.items():
        for what, values in of_volume.items():
            if len(values) > 1:
                where = ", ".join(f"{value} (row {number})" for value, number in values.items())
                problems.append(f"volume {name!r} has several values of {what}: {where}; mend one")
    return problems


def _index(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
