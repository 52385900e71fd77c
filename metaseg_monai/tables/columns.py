"""Where a slice lies: its volume, its plane, and the size of its voxels."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata.fields import read_number

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


# How a lab's own table is read without rewriting it (contract 7).

SPLITS = ("train", "val", "test")


class ColumnMap(BaseModel):
    """Which column of a table holds what; the default is the plain form.

    In the plain form every schema field is a column of its own name. All names are those of the
    table's header, except the keys of `metadata`, `rows_per` and the keys of `label_values`, which
    are fields of the schema.

    Attributes:
        table: file name of the table in its folder.
        image: column of image paths, relative to the table; several planes joined by `separator`.
        label: column of label paths; None where there is none.
        group: column of the group (patient, plate + well) that stays in one split; None makes
            every image its own group.
        split: column of the split.
        case: column of the case names; None derives them from the image paths.
        metadata: schema field -> column, for columns named otherwise than their field.
        factors: schema field -> number by which the table's values are multiplied, for columns in
            another unit (10 for centimetres where the field has millimetres).
        place: `volume`, `plane`, `planes`, `spacing_z_mm`, `spacing_y_mm` or `spacing_x_mm` ->
            column, where a table names the place of a slice in its volume otherwise.
        separator: between planes, and between the values of `rows_per`.
        rows_per: schema field whose column may hold several values; one row is made of each.
        label_values: pixel values of the label that count as foreground: one list for all rows,
            {field: {value: list}} where a field's value decides, or "instances" where every
            object has a number of its own from 1; empty where the label's values are the classes.
        split_names: the table's name of a split -> train, val or test.
        exclude: cells of the image column whose rows are left out, for instance a copy of an image
            that stands in two splits.

    Raises:
        ConfigError: an unknown key or a wrong value, named.

    >>> ColumnMap(metadata={"task": "tasks_given"}, rows_per="task").column_of("task")
    'tasks_given'
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    table: str = "table.csv"
    image: str = "image"
    label: str | None = "label"
    group: str | None = "group"
    split: str = "split"
    case: str | None = None
    metadata: dict[str, str] = {}
    factors: dict[str, float] = {}
    place: dict[str, str] = {}
    separator: str = ";"
    rows_per: str | None = None
    label_values: list[int] | dict[str, dict[str, list[int]]] | Literal["instances"] = []
    split_names: dict[str, str] = {}
    exclude: list[str] = []

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError(f"column map: {_explain(error)}") from error

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if len(value) != 1:
            raise ValueError(f"expected one character, got {value!r}")
        return value

    @field_validator("factors")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        wrong = {name: factor for name, factor in value.items() if not 0 < factor < float("inf")}
        if wrong:
            raise ValueError(f"expected numbers above 0, got {wrong}")
        return value

    @field_validator("place")
    @classmethod
    def _known_places(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - set(PLACE_COLUMNS))
        if unknown:
            raise ValueError(f"expected keys among {', '.join(PLACE_COLUMNS)}, got {unknown}")
        return value

    @field_validator("label_values")
    @classmethod
    def _one_deciding_field(
        cls, value: list[int] | dict[str, dict[str, list[int]]] | str
    ) -> list[int] | dict[str, dict[str, list[int]]] | str:
        if isinstance(value, dict) and len(value) > 1:
            raise ValueError(f"expected one deciding field, got {', '.join(value)}")
        return value

    @field_validator("split_names")
    @classmethod
    def _known_splits(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value.values()) - set(SPLITS))
        if unknown:
            raise ValueError(f"expected values among {', '.join(SPLITS)}, got {unknown}")
        return value

    def column_of(self, field: str) -> str:
        """The table's column of a schema field."""
        return self.metadata.get(field, field)

    def fields_named(self) -> set[str]:
        """Every schema field that this map names."""
        deciding = set(self.label_values) if isinstance(self.label_values, dict) else set()
        return {
            *self.metadata,
            *self.factors,
            *deciding,
            *([self.rows_per] if self.rows_per else []),
        }

    @classmethod
    def load(cls, path: str | Path) -> "ColumnMap":
        """Read a column map from JSON.

        Raises:
            ConfigError: the file is missing or no JSON object, or a key is unknown or wrong;
                names file and key.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"expected an object {{key: value}}, got {content!r:.80}")
            return cls(**content)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no column map: {error}; mend the file") from error

    def save(self, path: str | Path) -> None:
        """Write the column map as JSON; keys that have their default are left out."""
        content = self.model_dump(exclude_defaults=True)
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def as_column_map(columns: ColumnMap | Mapping[str, Any] | str | Path | None) -> ColumnMap:
    """The column map itself, from its settings, from its JSON file, or the plain form for None.

    Raises:
        ConfigError: an unknown key or a wrong value, named.
    """
    if isinstance(columns, ColumnMap):
        return columns
    if isinstance(columns, (str, Path)):
        return ColumnMap.load(columns)
    return ColumnMap(**(columns or {}))


def _explain(error: ValidationError) -> str:
    known = ", ".join(ColumnMap.model_fields)
    return "; ".join(
        f"unknown key {'.'.join(map(str, fault['loc']))!r}, expected one of {known}"
        if fault["type"] == "extra_forbidden"
        else f"key {'.'.join(map(str, fault['loc']))!r}: {fault['msg']}"
        for fault in error.errors()
    )
