"""How a lab's own table is read without rewriting it (contract 7)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, field_validator
from pydantic import Field as Setting

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import read_json, write_json
from metaseg_monai.images.image import Meaning
from metaseg_monai.naming import composed

Split = Literal["train", "val", "test", "calibration"]
SPLITS = ("train", "val", "test")
EVERY_SPLIT = (*SPLITS, "calibration")  # set apart, as for `conformal`: neither seen nor a test
ROOT = "root.json"  # beside a table whose images lie elsewhere
Place = Literal["volume", "plane", "planes", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]
Values = dict[str, list[int]]  # the pixel values that are foreground, by a field's value
LabelValues = list[int] | list[list[int]] | Literal["instances"]  # of one row; see `ColumnMap`


class ColumnMap(BaseModel):
    """Which column of a table holds what; the default is the plain form.

    In the plain form every schema field is a column of its own name. All names are those of the
    table's header, except the keys of `metadata`, `rows_per` and the keys of `label_values`, which
    are fields of the schema.

    Attributes:
        table: file name of the table in its folder.
        image: column of image paths, relative to the folder of the table, or to the one that
            `folder_of` reads beside it; several planes joined by `separator`.
        channels: columns of one file each, which together are the planes of an image in this
            order, of tables that have no column `image`.
        label: column of label paths; None where there is none.
        mask: column of paths of masks, where labels are images that are to be predicted and the
            training looks at masks, too; None where it does not.
        label_channels: {column: values}, where rows of one image have a label each: their labels
            are joined into one, in the order of these values of that column, which is no field of
            the schema; rows of other values are left out. Empty where each row is a case.
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
            object has a number of its own from 1; a list of lists, such as [[1], [2, 3]], has the
            values of each class from 1, and all others are background; empty where the label's
            values are the classes.
        mask_values: stored or shown, which of both counts where a label's numbers and what a
            viewer shows of them disagree (min-is-white, as tifffile writes Boolean masks; palettes
            from white); None refuses such labels.
        class_names: number of a class -> its name, such as {"1": "kidney"}.
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
    channels: list[str] = []
    label: str | None = "label"
    mask: str | None = None
    label_channels: Annotated[
        dict[str, Annotated[list[str], Setting(min_length=1)]], Setting(max_length=1)
    ] = {}
    group: str | None = "group"
    split: str = "split"
    case: str | None = None
    metadata: dict[str, str] = {}
    factors: dict[str, Annotated[float, Setting(gt=0, allow_inf_nan=False)]] = {}
    place: dict[Place, str] = {}
    separator: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ";"
    rows_per: str | None = None
    label_values: (
        list[int]
        | list[Annotated[list[int], Setting(min_length=1)]]
        | Annotated[dict[str, Values], Setting(max_length=1)]
        | Literal["instances"]
    ) = []
    mask_values: Meaning | None = None
    class_names: dict[str, str] = {}
    split_names: dict[str, Split] = {}
    exclude: list[str] = []

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**_composed(settings))
        except ValidationError as error:
            raise ConfigError(f"column map: {_explain(error)}") from error

    @field_validator("label_channels")
    @classmethod
    def _no_value_twice(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        if any(len(set(names)) < len(names) for names in value.values()):
            raise ValueError("a value stands there twice")
        return value

    @field_validator("label_values")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        every = [n for one in value if isinstance(one, list) for n in one]
        if twice := sorted({n for n in every if every.count(n) > 1}):
            raise ValueError(f"value {twice[0]} is of two classes")
        return value

    def column_of(self, field: str) -> str:
        """The table's column of a schema field."""
        return self.metadata.get(field, field)

    def fields_named(self) -> set[str]:
        """Every schema field that this map names."""
        deciding = self.label_values if isinstance(self.label_values, dict) else {}
        repeated = [self.rows_per] if self.rows_per else []
        return {*self.metadata, *self.factors, *deciding, *repeated}

    @classmethod
    def load(cls, path: str | Path) -> "ColumnMap":
        """Read a column map from JSON.

        Raises:
            ConfigError: the file is missing or no JSON object, or a key is unknown or wrong;
                names file and key.
        """
        try:
            content = read_json(path)
            if not isinstance(content, dict):
                raise ValueError(f"expected an object {{key: value}}, got {content!r:.80}")
            return cls(**content)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no column map: {error}; mend the file") from error

    def save(self, path: str | Path) -> None:
        """Write the column map as JSON; keys that have their default are left out."""
        write_json(path, self.model_dump(exclude_defaults=True))


def folder_of(table: Path) -> Path:
    """The folder that the paths in a table are relative to: its own, unless ``root.json`` says.

    The file lies beside the table and names it, {"table.csv": "../scans"}, as a copy of a table has
    whose images stay where they are. It holds for no other table: a bundle's new cases are never
    looked for among those that it was trained on.

    Raises:
        ConfigError: the file is there and does not say so.
        DataError: there is no such folder.
    """
    file = table.parent / ROOT
    try:
        content = read_json(file)
        root = content.get(table.name)
        if root is not None and not (isinstance(root, str) and root):
            raise ValueError(f"expected {{name of a table: folder}}, got {content!r:.80}")
    except (FileNotFoundError, NotADirectoryError):
        return table.parent
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: no folder of images ({error}); mend the file") from error
    if root is None:
        return table.parent
    folder = (table.parent / root).resolve()
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder, in which the images of {table} should lie; mend {file}"
        )
    return folder


Columns = ColumnMap | Mapping[str, Any] | str | Path | None


def as_column_map(columns: Columns, mask_values: Meaning | None = None) -> ColumnMap:
    """The column map itself, from its settings, from its JSON file, or the plain form for None.

    Args:
        columns: of a table.
        mask_values: takes the place of the map's own; None leaves it.

    Raises:
        ConfigError: an unknown key or a wrong value, named.
    """
    if isinstance(columns, (str, Path)):
        columns = ColumnMap.load(columns)
    elif not isinstance(columns, ColumnMap):
        columns = ColumnMap(**(columns or {}))
    if mask_values is None:
        return columns
    return ColumnMap(**{**columns.model_dump(exclude_defaults=True), "mask_values": mask_values})


def _composed(value: Any) -> Any:
    """Settings with all text in the form in which it is compared."""
    if isinstance(value, Mapping):
        return {_composed(key): _composed(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_composed, value))
    return composed(value) if isinstance(value, str) else value


def _explain(error: ValidationError) -> str:
    known = ", ".join(ColumnMap.model_fields)
    return "; ".join(
        f"unknown key {key!r}, expected one of {known}"
        if fault["type"] == "extra_forbidden"
        else f"key {key!r}: {fault['msg']}, got {fault['input']!r:.80}"
        for fault in error.errors()
        for key in [".".join(map(str, fault["loc"]))]
    )
