"""How much the score of a trained network depends on the size of the tiles it is run on.

The gates of SE and SME pool over the tile, so that a larger one tells them of other pixels than
the crops of the training did; the other variants see the same from any tile with wide margins.
Each size predicts the same cases with `blend: discard`; the pooled F1 is compared with the size
of the training crop.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from tqdm import tqdm

from metaseg_monai.bundle import check_overrides, configs_of, resolve_bundle
from metaseg_monai.bundle.run import configuration_file, read_workflow
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation import count_pixels
from metaseg_monai.inferers import AutocastInferer, SlidingWindowMetadataInferer
from metaseg_monai.metrics.scores import pooled_f1
from metaseg_monai.rows import write_table
from metaseg_monai.training.collate import batchable

WHOLE = "whole"


def measure(
    bundle: str,
    weights: str,
    dataset: str,
    sizes: str,
    output: str = "tile_sizes.csv",
    split: str = "test",
    margin_px: int | None = None,
    align: int | None = None,
    configuration: Any = None,
    **overrides: Any,
) -> None:
    """Print, and write as CSV, the pooled F1 of each tile size and its change.

    Example:
        python scripts/tile_size.py seven_lines_nuclei_segmentation --weights runs/sme/model.pt \
--dataset cells --sizes 256,512,1024,whole --variant sme

    Args:
        bundle: name or folder of the bundle.
        weights: its trained model.pt; `variant` and other settings as in the training.
        dataset: folder of the table.
        sizes: comma-separated sides of the tiles in pixels, or "whole"; the first is what the
            others are compared with: give the side of the training crop.
        output: CSV file to write.
        split: of the cases.
        margin_px: cut off at each inner end of a tile; default: half of the bundle's overlap.
        align: tiles begin at multiples of it; default: 2 ** levels.
        configuration: that of the training, if it had one, such as paper_size.
        overrides: settings of the bundle, such as --variant se --network_def#channels 16.
    """
    configs = configs_of("train", "evaluate", more=configuration)
    settings = {"dataset_dir": dataset, **overrides}
    parser = _parsed(resolve_bundle(bundle), configs, {**settings, "ckpt_path": weights})
    parser.get_parsed_content("weights").load()
    network = parser.get_parsed_content("network").eval()
    window = parser.get_parsed_content("window_inferer").windows
    items = parser.get_parsed_content("cases").items(split)
    step = 2 ** len(network.encoder) if align is None else align
    rows: list[dict[str, Any]] = []
    for size in _sides(sizes):
        inferer = AutocastInferer(
            SlidingWindowMetadataInferer(
                (size, size),
                sw_batch_size=1 if size < 0 else window.sw_batch_size,
                overlap=window.overlap,
                blend="discard",
                margin_px=margin_px,
                align=step,
            ),
            parser.get_parsed_content("validate#inferer").dtype,
        )
        name = WHOLE if size < 0 else str(size)
        f1 = _score(parser, network, inferer, tqdm(items, desc=f"tiles of {name}", disable=None))
        first = rows[0]["f1"] if rows else f1
        rows.append({"tile": name, "cases": len(items), "f1": f1, "change": f1 - first})
    write_table(rows, output)
    shown = pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format)
    sys.stdout.write(f"{shown}\n{output}\n")


def _parsed(bundle: Path, configs: list[str], settings: dict[str, Any]) -> ConfigParser:
    files = [configuration_file(bundle, name) for name in configs]
    check_overrides(files, settings)
    return read_workflow(bundle, files, settings).parser


def _sides(sizes: Any) -> list[int]:
    """The sides of the tiles, -1 for the whole image; fire gives text, a number or a tuple."""
    given = sizes.split(",") if isinstance(sizes, str) else sizes
    words = [str(word).strip() for word in (given if isinstance(given, (list, tuple)) else [given])]
    for word in words:
        if word != WHOLE and not (word.isdecimal() and int(word) > 0):
            raise ConfigError(f"sizes {word!r}: expected pixels above 0 or {WHOLE!r}")
    return [-1 if word == WHOLE else int(word) for word in words]


def _score(parser: ConfigParser, network: Any, inferer: Any, items: Any) -> float:
    """Pooled F1 over the cases, several classes averaged (NaN where all is background)."""
    load = Compose(parser.get_parsed_content("preprocessing"))
    classes, device = (parser.get_parsed_content(key) for key in ("classes", "device"))
    rows = []
    for item in items:
        item = batchable(load(item))
        metadata = {"meta": item["meta"][None].to(device)} if "meta" in item else {}
        with torch.inference_mode():
            logits = inferer(item["image"][None].to(device), network, **metadata)
        counts = count_pixels(logits.argmax(1).cpu(), item["label"].long(), classes)[0]
        for number, (tp, fp, fn, _) in enumerate(counts.tolist(), start=1):
            rows.append({"class": number, "tp": tp, "fp": fp, "fn": fn})
    return pooled_f1(pd.DataFrame(rows))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    run_script(measure)
