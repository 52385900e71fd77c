"""Score single objects while images are evaluated, and read the table again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events

from metaseg_monai.data import CaseTable, write_table
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.objects.instances import (
    ObjectSettings,
    as_object_settings,
    find_objects,
)
from metaseg_monai.evaluation.objects.matching import (
    THRESHOLDS,
    ObjectMatch,
    match_objects,
    object_f1,
)
from metaseg_monai.evaluation.objects.truth import true_objects
from metaseg_monai.evaluation.stale import remove_stale

NAMES = ["case", "group", "split", "mode", "domain"]
FOUND_COLUMNS = [f"tp_{round(100 * threshold)}" for threshold in THRESHOLDS]
WHOLE = ["class", "true", "pred", "tp_50", "fp_50", "fn_50", "splits", "merges", *FOUND_COLUMNS[1:]]
SHARES = ["f1_50", "f1_50_95", "precision_50", "recall_50", "matched_iou"]
OBJECT_SCORE_COLUMNS = [
    *NAMES, "class", "true", "pred", "tp_50", "fp_50", "fn_50", *SHARES, "splits", "merges",
    *FOUND_COLUMNS[1:], "truth", "ignored",
]  # fmt: skip
COMPONENTS = ObjectSettings()


class ObjectScores:
    """Evaluator handler that writes ``objects_scores.csv``: a row a case, mode and class.

    True objects are those of `true_objects`; predicted ones are made of the highest class score
    of each pixel. Where a case has no object numbers, so that its true objects are the connected
    parts of its label, its predicted ones are connected parts too, whatever the method: a
    watershed would cut a perfect mask of a crack into pieces of which none is true. True objects
    below `smallest_px` are ignored as predicted ones are (see `match_objects`), and counted in the
    column `ignored`. Objects at the image's border count as any other. All is measured at the
    resolution of the evaluation. Scores that do not exist are empty cells: all where truth and
    prediction have no object; precision, recall and matched IoU where they would divide by 0.

    Args:
        path: file to write; it appears only when the evaluation is complete.
        table: of the run, which names the files of true objects.
        objects: settings of `ObjectSettings`. None or {}: no objects are scored, and the file of
            an earlier evaluation is removed when this one is complete.

    Raises:
        ConfigError: a setting is wrong; while running: predictions are not of images.
        DataError: while running: a case is not in the table, or its true objects do not fit.
    """

    def __init__(
        self,
        path: str | Path,
        table: CaseTable,
        objects: ObjectSettings | Mapping[str, Any] | None = COMPONENTS,
    ) -> None:
        self.path = Path(path)
        self.folder = table.path.parent
        self.items = {item["case"]: item for item in table.rows}
        self.off = objects is None or objects == {}
        self.settings = as_object_settings(objects)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Score after every batch of the evaluator, write at its end; or remove what is stale."""
        if self.off:
            engine.add_event_handler(Events.COMPLETED, self.remove)
            return
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget an earlier evaluation."""
        self.rows = []

    def score(self, engine: Engine) -> None:
        """Add the rows of the batch's images."""
        batch, output = engine.state.batch, engine.state.output
        preds, labels = output["pred"], output["label"]
        if preds.ndim != 4:
            raise ConfigError(
                f"objects are scored in images (B, K, H, W), the predictions are "
                f"{tuple(preds.shape)}; set objects to null for volumes"
            )
        for index, case in enumerate(batch["case"]):
            if case not in self.items:
                raise DataError(f"case {case!r} is not in the table; give ObjectScores the run's")
            label = labels[index, 0].to(torch.int32).cpu().numpy()
            native = batch["native_shape"][index].tolist() if "native_shape" in batch else None
            truth = true_objects(self.items[case], self.folder, label, preds.shape[1], native)
            parts = truth.source == "components"
            settings = replace(self.settings, method="components") if parts else self.settings
            found = find_objects(preds[index], settings)
            names = {name: batch[name][index] for name in NAMES}
            for number in range(1, preds.shape[1]):
                own = truth.objects.of_class(number), found.of_class(number)
                scored = match_row(match_objects(*own, settings.smallest_px))
                row = {**names, "class": number, **scored, "truth": truth.source}
                self.rows.append({column: row[column] for column in OBJECT_SCORE_COLUMNS})

    def write(self, engine: Engine) -> None:
        """Write the file in one step."""
        write_table(self.rows, self.path)

    def remove(self, engine: Engine) -> None:
        """Remove scores of an earlier evaluation, of other predictions than those beside them."""
        remove_stale(self.path, OBJECT_SCORE_COLUMNS[: len(NAMES) + 3])


def match_row(match: ObjectMatch) -> dict[str, Any]:
    """Counts and scores of an image as cells; what does not exist is empty."""
    at_half = match.found[0]
    by_threshold = [object_f1(found, match.true, match.pred) for found in match.found]
    shares = {
        "f1_50": by_threshold[0],
        "f1_50_95": float(np.mean(by_threshold)),
        "precision_50": at_half / match.pred if match.pred else float("nan"),
        "recall_50": at_half / match.true if match.true else float("nan"),
        "matched_iou": match.matched_iou,
    }
    return {
        "true": match.true,
        "pred": match.pred,
        **dict(zip(FOUND_COLUMNS, match.found, strict=True)),
        "fp_50": match.pred - at_half,
        "fn_50": match.true - at_half,
        **{name: "" if value != value else value for name, value in shares.items()},
        "splits": match.splits,
        "merges": match.merges,
        "ignored": match.ignored,
    }


def read_object_scores(path: str | Path) -> pd.DataFrame:
    """Read an ``objects_scores.csv``; what is empty becomes NaN.

    A table that was written before small true objects were ignored has no column `ignored`; it
    gets one of NaN.

    Raises:
        DataError: the file is missing or no table of object scores, or holds a case, mode and
            class twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no scores of objects at {path}: evaluate with objects set.")
    text = dict.fromkeys([*NAMES, "truth"], str)
    empty = {name: [""] for name in SHARES}
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)
    except ValueError as error:  # pandas' errors of empty and broken files
        raise DataError(f"{path} is no table of objects ({error}); evaluate again.") from error
    if "ignored" not in table.columns:
        table["ignored"] = float("nan")
    missing = [column for column in OBJECT_SCORE_COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise DataError(f"{path} is no table of objects: it lacks {', '.join(missing) or 'rows'}.")
    kinds = table.dtypes
    whole = [name for name in (*WHOLE, "ignored") if not table[name].isna().all()]
    wrong = [name for name in whole if kinds[name].kind not in "iu" or (table[name] < 0).any()]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} must be whole numbers from 0; evaluate again.")
    wrong = [
        name for name in SHARES
        if kinds[name].kind not in "iuf" or not table[name].dropna().between(0, 1).all()
    ]  # fmt: skip
    if wrong:
        raise DataError(f"{path}: {wrong[0]} must be numbers from 0 to 1; evaluate again.")
    if (table["tp_50"] > table[["true", "pred"]].min(axis=1)).any():
        raise DataError(f"{path}: tp_50 above the number of objects; evaluate again.")
    twice = table[table.duplicated(["case", "mode", "class"])]
    if not twice.empty:
        first = twice.iloc[0]
        raise DataError(
            f"{path}: case {first['case']}, mode {first['mode']}, class {first['class']} stands "
            "there twice; evaluate again."
        )
    return table
