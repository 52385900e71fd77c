"""Measure the engines that run a model's network, side by side: time, and scores of the test cases.

The score is pooled F1, and of models that predict images medMAE in the range 0 to 1, lower better.

In each round every engine runs the same windows once, in an order that turns from round to round,
so that what else the machine does meets all alike; ratios are those within a round.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError, MetasegError
from metaseg_monai.files import write_json
from metaseg_monai.inferers import Runner, channels_last
from metaseg_monai.inferers.engines import FORMATS, PRECISIONS, choose
from metaseg_monai.inferers.exports import PARITY
from metaseg_monai.losses import MedianMeanAbsoluteLoss
from metaseg_monai.metrics.scores import pooled_f1
from metaseg_monai.sharing.export import Cases, Source
from metaseg_monai.sharing.run import export_folder
from metaseg_monai.training.weights import predicts_images

BASE = ("torch", "bf16")  # what bundles do, and ratios are to
WINDOWS = 8  # at once


def benchmark(
    *models: str,
    rounds: int = 15,
    split: str = "test",
    threads: int | None = None,
    output: str | None = None,
) -> None:
    """Print a row for each model and engine: time of a batch of windows, ratio and score.

    Example:
        python scripts/benchmark_engines.py runs/shapes/sme runs/lines/sme --rounds 25

    Engines that are not installed are left out, and int8 where the model has no such export
    (export MODEL --to openvino --precision int8).

    Args:
        models: folders of trained models, whose data are where they were trained on.
        rounds: of all engines.
        split: whose cases give the score.
        threads: of the CPU; by default PyTorch's own choice.
        output: JSON file for the rows.
    """
    if not models:
        raise ConfigError("no model is given; name the folders of trained models")
    if threads is not None:
        torch.set_num_threads(threads)
    rows = [row for model in models for row in _rows(model, rounds, split)]
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda one: f"{one:.4g}"))
    if output is not None:
        told = {"threads": torch.get_num_threads(), "rounds": rounds, "split": split, "rows": rows}
        write_json(output, told)


def _rows(model: str, rounds: int, split: str) -> list[dict[str, Any]]:
    source = Source.of(model)
    given, weights = source.exportable()
    of_images = predicts_images(weights.recorded)
    cases = Cases(source, given, {}, split)
    windows = _batched(cases.windows())
    network = channels_last(weights.network.eval())
    runs: dict[tuple[str, str], Callable[..., Tensor]] = {}
    for engine, precisions in PRECISIONS.items():
        for precision in precisions:
            if runner := _runner(model, engine, precision, network, weights, given):
                runs[engine, precision] = runner
    plain = [one for one in cases.scored if one.mode == "normal"]
    score, scores = _error if of_images else _f1, {}
    for name, run in tqdm(runs.items(), "scores", unit="engine"):
        try:
            run(*windows)
            scores[name] = score(cases, run, plain)
        except MetasegError as error:  # values that int8 was not calibrated for
            print(f"left out: {error}")
    times = _times({name: runs[name] for name in scores}, windows, rounds)
    total, by_value = scores["torch", "float32"]
    rows: list[dict[str, Any]] = []
    for name, (found, of) in scores.items():
        ratio = times[BASE] / times[name]
        low, high = np.quantile(ratio, [0.25, 0.75])
        changes = [of[value] - by_value[value] for value in of]
        rows.append(
            {
                "model": Path(model).name,
                "engine": name[0],
                "precision": name[1],
                "ms_per_batch": float(np.median(times[name])) * 1e3,
                "speed": float(np.median(ratio)),
                "speed_q1": float(low),
                "speed_q3": float(high),
                "score": "medmae" if of_images else "pooled_f1",
                "value": found,
                "minus_float32": found - total,
                "worst_value": max(changes) if of_images else min(changes),
            }
        )
    return rows


def _f1(cases: Cases, run: Callable[..., Tensor], of: list[Any]) -> tuple[float, dict[str, float]]:
    """Pooled F1, and that of each metadata value."""
    counts = cases.counts(run, of)
    return pooled_f1(counts), cases.by_value(counts, of)


def _error(
    cases: Cases, run: Callable[..., Tensor], of: list[Any]
) -> tuple[float, dict[str, float]]:
    """Mean medMAE, and that of each metadata value."""
    loss = MedianMeanAbsoluteLoss()
    found = [(case, float(loss(cases.answer(run, case), case.label))) for case in of]
    values: dict[str, list[float]] = {}
    for case, error in found:
        for value in case.values:
            values.setdefault(value, []).append(error)
    by_value = {value: float(np.mean(errors)) for value, errors in values.items()}
    return float(np.mean([error for _, error in found])), by_value


def _runner(
    model: str, engine: str, precision: str, network: Any, weights: Any, given: Any
) -> Callable[..., Tensor] | None:
    """The network as an engine runs it; None where it is not installed, or was not quantized."""
    folder = None
    if engine != "torch":
        folder = export_folder(model, FORMATS[engine], precision)
        folder = folder if (folder / PARITY).is_file() else None
    try:
        choose(engine, precision)
        if precision == "int8" and folder is None:
            return None
    except ConfigError as error:
        print(f"left out: {error}")
        return None
    sizes = {"in_channels": given.in_channels, "spatial_dims": given.spatial_dims}
    runner = Runner(network, engine, precision, folder, **sizes)
    runner.begin(weights)
    runner.eval()

    def run(image: Tensor, meta: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return runner(image, **({} if meta is None else {"meta": meta})).float()

    return run


def _batched(windows: list[dict[str, Any]]) -> tuple[Tensor, Tensor | None]:
    """The first windows of one shape, at most `WINDOWS`."""
    shape = windows[0]["image"].shape
    alike = [one for one in windows if one["image"].shape == shape][:WINDOWS]
    image = torch.from_numpy(np.concatenate([one["image"] for one in alike]))
    if "meta" not in alike[0]:
        return image, None
    return image, torch.from_numpy(np.concatenate([one["meta"] for one in alike]))


def _times(
    runs: dict[tuple[str, str], Callable[..., Tensor]],
    windows: tuple[Tensor, Tensor | None],
    rounds: int,
) -> dict[tuple[str, str], np.ndarray]:
    """Seconds of each run, by round."""
    times: dict[tuple[str, str], list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in tqdm(range(-2, rounds), "rounds"):  # the first two warm up
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            runs[name](*windows)
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(one) for name, one in times.items()}


if __name__ == "__main__":
    run_script(benchmark)
