"""What is known of every case beside its image: the file from which reports split and audit."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ignite.engine import Engine, Events

from metaseg_monai.errors import DataError
from metaseg_monai.files import replacing, write_table
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.table import CaseTable

CLASSES = "classes.json"
NAMES = ("case", "group", "split", "volume", "plane")
SPACING = ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm")


class KnownOfCases:
    """Evaluator handler that writes ``cases.csv``, a row for each case of all splits of the table.

    Beside names and place it has one column for each field of the schema, with the raw value,
    empty where it is missing. The spacing is that of the pixels that were counted, after any
    resampling, and empty for cases that were not evaluated or whose pixel size is unknown. That of
    planes is empty for images that are no slice; so a case of whole voxels without a plane is a
    volume.
    ``schema.json`` is written beside it, and ``classes.json`` where the classes have names.

    Args:
        path: file to write when the evaluation is complete.
        table: of the run.
        schema: whose fields become columns.
        class_names: by their numbers, as the channel_def of a bundle's metadata.json.
    """

    def __init__(
        self,
        path: str | Path,
        table: CaseTable,
        schema: MetadataSchema,
        class_names: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.table = table
        self.schema = schema
        self.class_names = class_names
        self.spacing: dict[str, list[float]] = {}

    def attach(self, engine: Engine) -> None:
        """Collect after every batch, write at the end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget an earlier evaluation."""
        self.spacing = {}

    def collect(self, engine: Engine) -> None:
        """Learn the spacing of the batch's pixels."""
        batch: Any = engine.state.batch
        if "spacing_mm" not in batch:
            return
        sides = batch["spacing_mm"].tolist()
        if batch["image"].ndim == 4 and "plane" not in batch:  # (B, C, H, W)
            sides = [[math.nan, *pixel] for _, *pixel in sides]
        self.spacing.update(zip(batch["case"], sides, strict=True))

    def write(self, engine: Engine) -> None:
        """Write the files, each in one step."""
        rows = []
        for item in self.table.rows:
            row = {name: item.get(name, "") for name in NAMES}
            spacing = self.spacing.get(item["case"])
            row |= dict.fromkeys(SPACING, "")
            if spacing is not None:
                sides = ["" if math.isnan(mm) else f"{mm:.9g}" for mm in spacing]
                row |= dict(zip(SPACING, sides, strict=True))
            for field in self.schema.fields:
                raw = item["metadata"].get(field.name)
                row[field.name] = "" if field.is_missing(raw) else raw
            rows.append(row)
        self.schema.save(self.path.with_name("schema.json"))
        if self.class_names is not None:
            with replacing(self.path.with_name(CLASSES)) as part:
                part.write_text(json.dumps(dict(self.class_names)) + "\n", encoding="utf-8")
        write_table(rows, self.path)


def read_cases(path: str | Path) -> pd.DataFrame:
    """Read a ``cases.csv``; metadata stay text, spacings are numbers (NaN where unknown).

    Raises:
        DataError: the file is missing or is no table of cases.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [name for name in (*NAMES, *SPACING) if name not in table.columns]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for name in SPACING:
            table[name] = pd.to_numeric(table[name])
    except (OSError, ValueError) as error:  # pandas' parsing errors are ValueErrors
        raise DataError(f"{path}: no table of cases ({error}); evaluate again.") from error
    return table
