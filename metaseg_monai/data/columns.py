"""How a lab's own table is read without rewriting it (contract 7)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from metaseg_monai.data.place import PLACE_COLUMNS
from metaseg_monai.errors import ConfigError

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
