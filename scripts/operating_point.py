"""How much of a difference between runs is only where they set their threshold.

A network that hedges (low recall, high precision) scores a low F1 although it may order pixels as
well as another. For each run of a study the logit of one class is raised by the offset that gives
the best pooled F1 on the validation cases; the test cases are then scored with it. Not part of any
protocol: an explanation, made after results were seen.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from tqdm import tqdm

from metaseg_monai.bundle.overrides import as_data
from metaseg_monai.cli.commands import run_script
from metaseg_monai.inferers import AutocastInferer
from metaseg_monai.training import read_weights

EDGES = np.linspace(-20, 20, 801)  # of the margin: logit of the class minus the highest other one


def measure(study: str, conditions: str, label_class: int = 2, bundle: str | None = None) -> None:
    """Print for each run the F1 as trained, the offset, and the F1 with it.

    Example:
        python scripts/operating_point.py runs/controls --conditions se,sme-dummy,sme-unrelated

    Args:
        study: folder of a study; run this where the study was run, paths are relative.
        conditions: comma-separated conditions of it.
        label_class: class of the label.
        bundle: folder of the bundle, where it is not where the study had it.
    """
    logging.disable(logging.WARNING)
    names = conditions.split(",") if isinstance(conditions, str) else list(conditions)
    print("condition,seed,f1,offset,f1_with_offset")
    for name in names:
        for run in sorted(Path(study, name).glob("seed*")):
            margins = _margins(run, label_class, bundle)
            gains = [_f1(margins["val"], cut) for cut in range(len(EDGES))]
            best = int(np.argmax(gains))
            plain, tuned = (_f1(margins["test"], cut) for cut in (len(EDGES) // 2, best))
            print(f"{name},{run.name[4:]},{plain:.3f},{-EDGES[best]:.2f},{tuned:.3f}")


def _margins(run: Path, label_class: int, bundle: str | None) -> dict[str, np.ndarray]:
    """Pixels by margin (columns) and by whether they are of the class (rows), for each split."""
    record = json.loads((run / "run.json").read_text())
    root = Path(bundle or record["bundle"])
    parser = ConfigParser()
    parser.read_config([str(root / "configs" / name) for name in ("train.json", "evaluate.json")])
    settings = {**record["settings"], "bundle_root": as_data(root), "output_dir": as_data(run)}
    for key, value in settings.items():
        parser[key] = value
    network = parser.get_parsed_content("network")
    network.load_state_dict(read_weights(run / "model.pt")[0])
    network.eval()
    inferer = AutocastInferer(parser.get_parsed_content("window_inferer"))
    load = Compose(parser.get_parsed_content("validate#preprocessing"))
    cases = parser.get_parsed_content("cases")
    return {
        split: np.sum(
            [
                _histogram(network, inferer, load(item), label_class)
                for item in tqdm(
                    cases.items(split), desc=f"{run.parent.name} {split}", disable=None
                )
            ],
            axis=0,
        )
        for split in ("val", "test")
    }


def _histogram(network: Any, inferer: Any, item: dict[str, Any], label_class: int) -> np.ndarray:
    metadata = {"meta": item["meta"][None]} if "meta" in item else {}
    with torch.no_grad():
        logits = inferer(item["image"][None], network, **metadata)[0]
    others = torch.cat([logits[:label_class], logits[label_class + 1 :]]).max(0).values
    margin = (logits[label_class] - others).clamp(EDGES[0], EDGES[-1] - 1e-3).numpy()
    inside = (item["label"][0] == label_class).numpy()
    return np.stack([np.histogram(margin[part], EDGES)[0] for part in (~inside, inside)])


def _f1(histogram: np.ndarray, cut: int) -> float:
    """Pooled F1 where margins from an edge upward count as the class."""
    false, true = histogram[:, cut:].sum(axis=1)
    missed = histogram[1, :cut].sum()
    return float(2 * true / max(2 * true + false + missed, 1))


if __name__ == "__main__":
    run_script(measure)
