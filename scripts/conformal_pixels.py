"""Whether confident pixels of the nuclei model are right as often as they promise.

The nuclei model of the adipocyte bundle answers a mask beside the fluorescence. Wells are divided
into a calibration and a test at random and many times over: for each class it is told which share
of its pixels keeps it at a level of confidence, each well counted once, and which share of all
pixels is given one class only. Nuclei that a watershed parts from confident centres are counted
beside those of the plain mask. The model predicts each image once and trains nothing.
"""

import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.transforms import Compose
from skimage.segmentation import watershed
from tqdm import tqdm

from metaseg_monai.bundle import check_overrides, configs_of, resolve_bundle
from metaseg_monai.bundle.run import read_workflow
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError, DataError, root_refusal
from metaseg_monai.evaluation.object_scores import read_numbers
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.metrics.conformal import (
    ROUNDING,
    ClassConfidence,
    checked_level,
    class_histograms,
)
from metaseg_monai.metrics.objects import (
    ObjectSettings,
    match_objects,
    number_objects,
    object_f1,
)
from metaseg_monai.training.collate import batchable

BUNDLE = "adipocyte_fluorescence_translation"
CLASSES = ("background", "nucleus")


@dataclass(frozen=True)
class Answer:
    """What the model says of an image, and what is true.

    Attributes:
        group: the well.
        probabilities: float32 (2, H, W).
        label: mask (H, W), 0 or 1.
        nuclei: (H, W), numbered.
    """

    group: str
    probabilities: np.ndarray
    label: np.ndarray
    nuclei: np.ndarray

    @cached_property
    def histogram(self) -> np.ndarray:
        """See `class_histograms`."""
        return class_histograms(self.probabilities, self.label)


def main(
    weights: str,
    dataset: str,
    split: str = "test",
    levels: str = "0.9,0.95",
    divisions: int = 100,
    share: float = 0.75,
    seed: int = 0,
    output: str | None = None,
    **settings: Any,
) -> None:
    """Print coverage of each class at each level, and how many nuclei confident centres part.

    Example:
        python -m metaseg_monai generate adipocyte --output wells --train 1 --val 1 \
--test 60 --size 128
        python scripts/conformal_pixels.py runs/nuclei/model.pt --dataset wells --variant none

    Args:
        weights: model.pt of the adipocyte bundle's train_nuclei.
        dataset: folder of a table with masks and numbers of nuclei.
        split: of the wells; the model has not seen them.
        levels: comma-separated shares that are promised.
        divisions: how many.
        share: of the wells that calibrate. The one to come counts as the worst, so that coverage
            lies above what is promised by about 1 / (K + 1) of K wells.
        seed: of the divisions.
        output: file of the table, such as coverage.csv.
        settings: of the bundle, as in the training.
    """
    words = [one.strip() for one in str(levels).strip("()").split(",")]
    told = [checked_level(read_number(one) or one) for one in words]
    if type(divisions) is not int or divisions < 1:
        raise ConfigError(f"divisions is {divisions!r}; expected a whole number from 1")
    checked_level(share)
    if output is not None and not Path(output).parent.is_dir():
        raise ConfigError(f"output={output}: no such folder; make it")
    try:
        answers = _answers(weights, split, {"dataset_dir": dataset, **settings})
    except RuntimeError as error:  # MONAI's, around ours
        raise root_refusal(error) or error from error
    wells = len({one.group for one in answers})
    calibrating = round(share * wells)
    if not 0 < calibrating < wells or (calibrating + 1) * (1 - max(told)) < 1 - ROUNDING:
        raise DataError(
            f"{calibrating} of {wells} wells of the split {split} would calibrate, too few for "
            f"{max(told):g}; give more wells, another --share, or lower --levels"
        )
    drawn = divided(answers, divisions, share, seed)
    table = covered(answers, told, drawn)
    sys.stdout.write(f"{table.round(4).to_string(index=False)}\n")
    if output is not None:
        table.to_csv(output, index=False)
    for level in told:
        sys.stdout.write(f"{parted(answers, level, drawn[0])}\n")


def _answers(weights: str, split: str, settings: Mapping[str, Any]) -> list[Answer]:
    bundle = resolve_bundle(BUNDLE)
    files = [bundle / "configs" / name for name in configs_of("train", "train_nuclei", "evaluate")]
    given = {**settings, "ckpt_path": weights, "split": split}
    check_overrides(files, given)
    parser = read_workflow(bundle, files, given).parser
    parser.get_parsed_content("weights").load()
    network = parser.get_parsed_content("network").eval()
    inferer = parser.get_parsed_content("validate#inferer")
    load = Compose(parser.get_parsed_content("preprocessing"))
    table, device = (parser.get_parsed_content(name) for name in ("cases", "device"))
    answers = []
    for item in tqdm(table.items(split), desc="images", disable=None):
        loaded = batchable(load(item))
        metadata = {"meta": loaded["meta"][None].to(device)} if "meta" in loaded else {}
        with torch.inference_mode():
            answer = inferer(loaded["image"][None].to(device), network, **metadata)
        probabilities = network.parts(answer.float())[1].softmax(1)[0].cpu().numpy()
        label = np.asarray(loaded["mask"])[0].astype(np.int64)
        file = table.folder / str(item["columns"]["instances"])
        nuclei = read_numbers(file, label.shape, None, None)
        answers.append(Answer(str(item["group"]), probabilities, label, nuclei))
    if not answers:
        raise DataError(f"no case of the split {split}; name another with --split")
    return answers


def divided(
    answers: Sequence[Answer], divisions: int, share: float, seed: int
) -> list[Collection[str]]:
    """The wells that calibrate, in each division."""
    names, rng = list(dict.fromkeys(one.group for one in answers)), np.random.default_rng(seed)
    return [set(rng.permutation(names)[: round(share * len(names))]) for _ in range(divisions)]


def covered(
    answers: Sequence[Answer], levels: Sequence[float], drawn: Sequence[Collection[str]]
) -> pd.DataFrame:
    """A row for each level and class, means over divisions.

    Args:
        answers: of all wells.
        levels: that are promised.
        drawn: of `divided`.

    Returns:
        `level`, `class`, `wells` that test, `coverage`, each well counted once, its standard
        deviation over divisions `spread`, the first division's `one`, and `decided`: the share of
        the test pixels of the class to which one class only is left.
    """
    rows = []
    for number, chosen in enumerate(tqdm(drawn, desc="divisions", disable=None)):
        sure, tested = _calibrated(answers, chosen)
        for level in levels:
            sets = [sure.sets(one.probabilities, level) for one in tested]
            for place, name in enumerate(CLASSES):
                shares = pd.DataFrame(
                    {
                        "well": one.group,
                        "pixels": (mask := one.label == place).sum(),
                        "kept": kept[place][mask].sum(),
                        "decided": (kept.sum(0) == 1)[mask].sum(),
                    }
                    for one, kept in zip(tested, sets, strict=True)
                )
                wells = shares.groupby("well")[["pixels", "kept", "decided"]].sum()
                wells = wells[wells["pixels"] > 0]
                rows.append(
                    {
                        **{"division": number, "level": level, "class": name, "wells": len(wells)},
                        "coverage": (wells["kept"] / wells["pixels"]).mean(),
                        "decided": wells["decided"].sum() / wells["pixels"].sum(),
                    }
                )
    every = pd.DataFrame(rows)
    of_class = every.groupby(["level", "class"], sort=False)
    table = of_class[["wells", "coverage", "decided"]].mean()
    table.insert(2, "spread", of_class["coverage"].std())
    table.insert(3, "one", every[every["division"] == 0].set_index(["level", "class"])["coverage"])
    return table.reset_index()


def _calibrated(
    answers: Sequence[Answer], chosen: Collection[str]
) -> tuple[ClassConfidence, list[Answer]]:
    """The confidence by some wells, and what the others answer."""
    own = [one for one in answers if one.group in chosen]
    sure = ClassConfidence([one.histogram for one in own], [one.group for one in own])
    return sure, [one for one in answers if one.group not in chosen]


def parted(answers: Sequence[Answer], level: float, chosen: Collection[str]) -> str:
    """Say how many nuclei are found by the mask, and by its confident centres too.

    Args:
        answers: of all wells.
        level: of the centres.
        chosen: the wells that calibrate; nuclei are those of the others.
    """
    sure, tested = _calibrated(answers, chosen)
    counts = {"mask": np.zeros(3), "confident centres": np.zeros(3)}
    for one in tested:
        mask = (one.probabilities[1] > 0.5).astype(np.uint8)
        plain = number_objects(mask, 2, ObjectSettings()).labels
        seeds = sure.seeds(one.probabilities, level)
        grown = watershed(-one.probabilities[1], seeds, mask=(mask > 0) | (seeds > 0))
        for name, found in (("mask", plain), ("confident centres", grown)):
            match = match_objects(one.nuclei, np.asarray(found))
            counts[name] += (match.found[0], match.true, match.pred)
    told = (
        f"{name}: {pred:.0f} for {true:.0f}, F1 {object_f1(found, true, pred):.3f}"
        for name, (found, true, pred) in counts.items()
    )
    return f"nuclei at {level:g}, {'; '.join(told)}"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    run_script(main)
