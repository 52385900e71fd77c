"""Count once per case, write to disk; every score and table is computed from that file."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.files import write_table
from metaseg_monai.metrics.scores import COUNT_COLUMNS


def count_pixels(pred: Tensor, label: Tensor, classes: int) -> Tensor:
    """Count true and false positives and negatives of every foreground class in every image.

    Args:
        pred: predicted classes (B, *S).
        label: target classes (B, *S).
        classes: number of classes K with the background, which is class 0.

    Returns:
        int64 (B, K - 1, 4): tp, fp, fn, tn of the classes 1 to K - 1.

    >>> count_pixels(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 1]]), classes=2).tolist()
    [[[1, 1, 1, 0]]]
    """
    if pred.shape != label.shape:
        raise DataError(f"prediction {tuple(pred.shape)} and target {tuple(label.shape)} differ")
    counts = []
    for number in range(1, classes):
        hit, truth = (pred == number).flatten(1), (label == number).flatten(1)
        cells = [hit & truth, hit & ~truth, ~hit & truth, ~hit & ~truth]
        counts.append(torch.stack([cell.sum(1) for cell in cells], dim=1))
    return torch.stack(counts, dim=1)


class CaseCounts:
    """Evaluator handler that writes ``counts.csv`` when the evaluation is complete.

    Args:
        path: file to write; it appears only when every case has been counted.
        classes: number of classes K with the background.
    """

    def __init__(self, path: str | Path, classes: int) -> None:
        self.path = Path(path)
        self.classes = classes
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Count after every batch of the evaluator, write at its end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget the counts of an earlier evaluation."""
        self.rows = []

    def count(self, engine: Engine) -> None:
        """Add a row for each case and class of the batch."""
        batch, output = engine.state.batch, engine.state.output
        pred, label = output["pred"].argmax(1), output["label"][:, 0].long()
        counts = count_pixels(pred, label, self.classes).tolist()
        for index, of_case in enumerate(counts):
            names = {key: batch[key][index] for key in ("case", "group", "split", "mode", "domain")}
            for number, (tp, fp, fn, tn) in enumerate(of_case, start=1):
                self.rows.append({**names, "class": number, "tp": tp, "fp": fp, "fn": fn, "tn": tn})

    def write(self, engine: Engine) -> None:
        """Write the file in one step."""
        rows = [{column: row[column] for column in COUNT_COLUMNS} for row in self.rows]
        write_table(rows, self.path)


def read_counts(path: str | Path) -> pd.DataFrame:
    """Read a ``counts.csv``.

    Raises:
        DataError: if the file is missing or is not a table of counts.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no counts at {path}: run the evaluation of this model first.")
    text = dict.fromkeys(["case", "group", "split", "mode", "domain"], str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except ValueError as error:  # pandas' errors of empty and broken files
        raise DataError(f"{path} is no table of counts ({error}); evaluate again.") from error
    missing = [column for column in COUNT_COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise DataError(f"{path} is no table of counts: it lacks {', '.join(missing) or 'rows'}.")
    numbers = table[COUNT_COLUMNS[5:]]
    if not all(kind.kind in "iu" for kind in numbers.dtypes) or (numbers < 0).any(axis=None):
        raise DataError(f"{path}: counts must be whole numbers from 0; evaluate again.")
    reserved = set(table["domain"]) & {"combined", "average"}
    if reserved:
        raise DataError(f"{path}: {reserved.pop()!r} names an aggregate; give that domain another.")
    return table
