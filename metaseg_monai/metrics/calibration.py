"""Can a predicted probability be taken at its word? Bins for each case, and errors from them."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import remove_stale, write_table

NAMES = ["case", "group", "split", "mode", "domain"]
NUMBERS = ["class", "bin", "pixels", "confidence", "positives", "inside"]
BIN_COLUMNS = [*NAMES, *NUMBERS]
_LATER: dict[str, Any] = {"mode": "normal", "inside": float("nan")}  # for files of 0.1.0


def bin_probabilities(logits: Tensor, label: Tensor, bins: int = 10) -> Tensor:
    """Sort the pixels of every image into bins of their predicted probability.

    Bin b of n holds the probabilities b / n <= p < (b + 1) / n; the last one also holds p = 1.

    Args:
        logits: network output (B, K, *S) before the softmax; class 0 is the background.
        label: target classes (B, *S).
        bins: number of bins of equal width over 0..1.

    Returns:
        float64 (B, K - 1, bins, 4): for each foreground class its pixels, the sum of their
        probabilities, how many of them are of the class, and the sum of those' probabilities.

    >>> bin_probabilities(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]), bins=2)[0, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [3.0, 1.5, 2.0, 1.0]]
    """
    if logits.shape[:1] + logits.shape[2:] != label.shape:
        raise DataError(f"logits {tuple(logits.shape)} and target {tuple(label.shape)} do not fit")
    # float32 first: under autocast the logits are bfloat16, which has no more than 3 digits
    p = logits.float().softmax(1)[:, 1:].flatten(2)
    images, classes, _ = p.shape
    numbers = torch.arange(1, classes + 1, device=p.device).view(1, -1, 1)
    truth = label.flatten(1).unsqueeze(1) == numbers
    edges = torch.arange(1, bins, device=p.device) / bins
    # every image and class has its own range of bins, so that one pass counts them all
    first_bin = torch.arange(images * classes, device=p.device).view(images, classes, 1) * bins
    place = (torch.bucketize(p.contiguous(), edges, right=True) + first_bin).flatten()
    cells = images * classes * bins
    pixels = torch.bincount(place, minlength=cells).double()
    confidence = torch.bincount(place, weights=p.flatten().double(), minlength=cells)
    of_class = truth.flatten()
    positives = torch.bincount(place[of_class], minlength=cells).double()
    inside = torch.bincount(
        place[of_class], weights=p.flatten()[of_class].double(), minlength=cells
    )
    sums = torch.stack([pixels, confidence, positives, inside], dim=-1)
    return sums.view(images, classes, bins, 4)


class CalibrationBins:
    """Evaluator handler that writes ``calibration.csv`` when the evaluation is complete.

    Every mode is counted. A probability is judged under true metadata, in mode ``normal``; the
    other modes tell how much of it a foreign value takes (paper 3.2). An evaluation without mode
    ``normal`` writes no file, and removes one of an earlier evaluation, which would stand beside
    counts of other predictions.

    Args:
        path: file to write; one row for each case, mode, foreground class and bin that is not
            empty.
        classes: number of classes K with the background.
        bins: number of bins of equal width over 0..1.

    Raises:
        ConfigError: fewer than two bins.
    """

    def __init__(self, path: str | Path, classes: int, bins: int = 10) -> None:
        if bins < 2:
            raise ConfigError(f"CalibrationBins: bins is {bins}; use at least 2, commonly 10.")
        self.path = Path(path)
        self.classes = classes
        self.bins = bins
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Count after every batch of the evaluator, write at its end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget the bins of an earlier evaluation."""
        self.rows = []

    def count(self, engine: Engine) -> None:
        """Add the bins of the batch's cases.

        Raises:
            DataError: the prediction has another number of channels than there are classes.
        """
        batch, output = engine.state.batch, engine.state.output
        if output["pred"].shape[1] != self.classes:
            raise DataError(
                f"{batch['case'][0]}: the prediction has {output['pred'].shape[1]} "
                f"channels for {self.classes} classes; set classes to what the network predicts."
            )
        sums = bin_probabilities(output["pred"], output["label"][:, 0].long(), self.bins).tolist()
        for index, of_case in enumerate(sums):
            names = {key: batch[key][index] for key in NAMES}
            for number, of_class in enumerate(of_case, start=1):
                for place, (pixels, confidence, positives, inside) in enumerate(of_class):
                    if pixels:
                        cell = (number, place, int(pixels), confidence, int(positives), inside)
                        self.rows.append({**names, **dict(zip(NUMBERS, cell, strict=True))})

    def write(self, engine: Engine) -> None:
        """Write the file in one step."""
        if any(row["mode"] == "normal" for row in self.rows):
            write_table(self.rows, self.path)
        else:
            remove_stale(self.path, NAMES)


def read_calibration(path: str | Path, mode: str | None = "normal") -> pd.DataFrame:
    """Read a ``calibration.csv``: one row for each case, mode, foreground class and filled bin.

    ``pixels`` is the number of pixels in the bin, ``confidence`` the sum of their probabilities,
    ``positives`` the number of those that are of the class and ``inside`` the sum of the
    probabilities of these. Earlier files tell of mode ``normal`` alone and nothing of ``inside``,
    which is NaN then.

    Args:
        path: the file.
        mode: the rows of this test mode; None for those of all.

    Raises:
        DataError: if the file is missing or is not a table of bins.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"There are no calibration bins at {path}: evaluate this model in mode normal first."
        )
    text = dict.fromkeys(NAMES, str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except ValueError as error:  # pandas' errors of empty and broken files
        raise DataError(f"{path} is no table of bins ({error}); evaluate again.") from error
    if not set(_LATER) & set(table.columns):
        table = table.assign(**_LATER)
    missing = [column for column in BIN_COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise DataError(
            f"{path} is no table of calibration bins: it lacks {', '.join(missing) or 'rows'}."
        )
    if any(table[name].dtype.kind not in "iuf" for name in NUMBERS):
        raise DataError(f"{path}: a bin is not made of numbers; evaluate again.")
    if mode is None:
        return table
    return table[table["mode"] == mode].reset_index(drop=True)


def reliability(table: pd.DataFrame) -> pd.DataFrame:
    """Add the bins of all cases and classes: the points of a reliability diagram.

    Args:
        table: rows of `read_calibration`, of one or more cases, classes and seeds.

    Returns:
        One row for each bin that is not empty: ``bin``, ``pixels``, ``confidence`` (mean
        probability, 0..1) and ``frequency`` (share of the pixels that are of the class, 0..1).
    """
    sums = table.groupby("bin")[["pixels", "confidence", "positives"]].sum().reset_index()
    return pd.DataFrame(
        {
            "bin": sums["bin"],
            "pixels": sums["pixels"],
            "confidence": sums["confidence"] / sums["pixels"],
            "frequency": sums["positives"] / sums["pixels"],
        }
    )


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean of |frequency - confidence| over the bins, weighted by their pixels, 0..1.

    This is the error of Guo et al. (2017, section 2) on the probability of the foreground
    instead of that of the predicted class. It is small wherever most pixels are background with a
    probability near 0, which are right and hide the rest: read `foreground_calibration_error` too.

    Args:
        table: rows of `read_calibration`.

    >>> row = {"bin": 9, "pixels": 10, "confidence": 9.5, "positives": 7}
    >>> round(expected_calibration_error(pd.DataFrame([row])), 3)
    0.25
    """
    return _error(reliability(table))


def foreground_calibration_error(table: pd.DataFrame) -> float:
    """`expected_calibration_error` without the first bin, that of the sure background.

    NaN where every pixel is in the first bin.

    Args:
        table: rows of `read_calibration`.
    """
    return _error(reliability(table[table["bin"] > 0]))


def calibration_errors(table: pd.DataFrame, column: str = "domain") -> pd.DataFrame:
    """Both errors of each value of a column (``domain``, ``class``, ``group``), in table order.

    Returns:
        Index: the values; columns ``pixels``, ``error`` and ``foreground_error``.
    """
    rows = {
        str(name): {
            "pixels": int(part["pixels"].sum()),
            "error": expected_calibration_error(part),
            "foreground_error": foreground_calibration_error(part),
        }
        for name, part in table.groupby(column, sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(column)


def _error(bins: pd.DataFrame) -> float:
    if bins.empty:
        return float("nan")
    distance = (bins["frequency"] - bins["confidence"]).abs()
    return float((bins["pixels"] * distance).sum() / bins["pixels"].sum())
