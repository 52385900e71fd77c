"""The deep check of a table: every file read, before any training."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.files import file_sha256
from metaseg_monai.images.image import Channels
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.cases import LoadedCase, image_files, load_case
from metaseg_monai.tables.columns import SPLITS, ColumnMap
from metaseg_monai.tables.table import scan_table


class TableCheck(NamedTuple):
    """What a deep check found.

    Attributes:
        problems: what training would fail on or be wrong with; empty where all is right.
        warnings: what is allowed but seldom meant.
        summary: splits, shapes, pixel types and classes, in a few lines.
    """

    problems: list[str]
    warnings: list[str]
    summary: str


def check_table(
    path: str | Path,
    schema: MetadataSchema | None,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    classes: int = 2,
    channels: Channels = "stored",
    spatial_dims: int | None = None,
    axes: str | None = None,
) -> TableCheck:
    """Read every file of a table and compare contents across splits.

    Args:
        path: the table, or the folder that holds it.
        schema: of the metadata; None reads no metadata.
        columns: see `read_table`.
        classes: number of classes, background included.
        channels: see `convert_channels`.
        spatial_dims: see `read_image`.
        axes: see `read_image`.

    Raises:
        DataError: the table is missing or unreadable, or lacks columns.
        ConfigError: the column map is wrong.
    """
    table, problems = scan_table(path, schema, columns)
    tally = _Tally(classes)
    warnings: list[str] = []
    for item in tqdm(table.rows, desc="check", unit="case", disable=None):
        if schema is not None:
            warnings += schema.flags(item["metadata"], item["case"])
        tally.remember_content(item)
        try:
            loaded = load_case(item, channels, classes, spatial_dims, axes)
        except DataError as error:
            problems.append(str(error))
            continue
        warnings += loaded.remarks
        tally.count(item, loaded)
    problems += tally.problems()
    warnings += tally.warnings()
    warnings += [
        f"no rows of the split {split!r}: training needs train and val, evaluation test"
        for split in SPLITS
        if split not in table.splits
    ]
    return TableCheck(problems, warnings, "\n".join([table.summary(), *tally.lines()]))


class _Tally:
    """Counts over all cases of a table."""

    def __init__(self, classes: int) -> None:
        self.pixels_of_class = np.zeros(classes, dtype=np.int64)
        self.channels: dict[int, str] = {}  # number of channels -> first case
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.empty: list[str] = []
        self.labelled = 0
        self.paths_of_content: dict[str, dict[str, str]] = defaultdict(dict)  # sha256: path: split
        self.hashed: set[str] = set()
        self.value_range = (np.inf, -np.inf)

    def remember_content(self, item: Mapping[str, Any]) -> None:
        image = item["image"]
        if str(image) not in self.hashed:
            self.hashed.add(str(image))
            digest = ";".join(map(file_sha256, image_files(item)))
            self.paths_of_content[digest][str(image)] = item["split"]

    def count(self, item: Mapping[str, Any], loaded: LoadedCase) -> None:
        self.channels.setdefault(loaded.image.shape[0], item["case"])
        self.shapes[loaded.image.shape[1:]] += 1
        low, high = float(loaded.image.min()), float(loaded.image.max())
        self.value_range = (min(self.value_range[0], low), max(self.value_range[1], high))
        if loaded.label is not None:
            self.labelled += 1
            counts = np.bincount(loaded.label.ravel(), minlength=len(self.pixels_of_class))
            self.pixels_of_class += counts
            if not counts[1:].any():
                self.empty.append(item["case"])

    def problems(self) -> list[str]:
        found = [
            f"the same image content in several splits: "
            f"{', '.join(f'{path} ({split})' for path, split in paths.items())}; keep one"
            for paths in self.paths_of_content.values()
            if len(set(paths.values())) > 1
        ]
        if len(self.channels) > 1:
            told = ", ".join(f"{count} (case {case!r})" for count, case in self.channels.items())
            found.append(
                f'the images have different numbers of channels: {told}; set channels="grey" '
                'or channels="rgb"'
            )
        return found

    def warnings(self) -> list[str]:
        found = [
            f"the same image content under several paths: {', '.join(paths)}"
            for paths in self.paths_of_content.values()
            if len(paths) > 1 and len(set(paths.values())) == 1
        ]
        if len(self.shapes) > 1:
            found.append(
                f"the images have {len(self.shapes)} sizes: validation and tests see whole images "
                "and need val_batch_size 1; training crops them (roi_size)"
            )
        if self.labelled:
            found += [
                f"class {number} is in no label"
                for number, count in enumerate(self.pixels_of_class)
                if count == 0
            ]
        if self.empty:
            shown = ", ".join(self.empty[:5]) + (", ..." if len(self.empty) > 5 else "")
            found.append(f"{len(self.empty)} of {self.labelled} masks are empty: {shown}")
        return found

    def lines(self) -> list[str]:
        if not self.shapes:
            return ["  no case could be read"]
        shapes = ", ".join(
            f"{'x'.join(map(str, shape))} ({count})" for shape, count in self.shapes.most_common(3)
        )
        more = f" and {len(self.shapes) - 3} more" if len(self.shapes) > 3 else ""
        parts = self.pixels_of_class / max(1, int(self.pixels_of_class.sum()))
        told = ", ".join(f"{number}: {part:.2%}" for number, part in enumerate(parts))
        return [
            f"  image shapes: {shapes}{more}; channels: {', '.join(map(str, self.channels))}; "
            f"values {self.value_range[0]:g} to {self.value_range[1]:g}",
            f"  pixels of each class: {told}; empty masks: {len(self.empty)}",
        ]
