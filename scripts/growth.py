"""What a model that grows by a domain reaches there, beside an expert, and what the old ones lose.

Shapes: SME with a neutral start is trained on five requested shapes, grown by the cross and trained
further on all six: all weights, gates alone, or the new column alone. An expert sees the cross
alone. Each of the trainings takes 750 steps of 8 images. Fixed before the run, nothing tuned.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from metaseg_monai.bundle.run import resolve_bundle
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.rows import write_table
from metaseg_monai.simulate import generate_synthetic_shapes

BUNDLE = "synthetic_shapes_segmentation"
NEW = "cross"
SIZES = (
    *("--metadata_dropout", "0.0", "--roi_size", "[48,48]"),
    *("--train#augmentation#0#spatial_size", "[60,60]"),
)
MODELS = ("base", "grown", "all", "gates", "new", "expert")


def growth(output: str = "runs/growth", seeds: Sequence[int] | int = (0, 1, 2)) -> None:
    """Train, grow, train further and test; print a table of F1, old shapes and the new one apart.

    Example:
        python scripts/growth.py --output runs/growth --seeds 0,1,2

    Args:
        output: folder for the tables, models and growth.csv; the same command goes on where it
            was stopped.
        seeds: of the trainings; the images are the same for all.

    Raises:
        ConfigError: a seed is no whole number, or there is none.
    """
    chosen = [seeds] if isinstance(seeds, int) else list(seeds)
    if not chosen or not all(isinstance(seed, int) for seed in chosen):
        raise ConfigError(f"seeds must be whole numbers, such as 0,1,2, got {seeds!r}")
    folder = Path(output)
    shapes = folder / "shapes"
    if not (shapes / "table.csv").exists():
        generate_synthetic_shapes(shapes, train=600, val=60, test=120, size=48, seed=0, overlap=0.1)
    tables = {"six": shapes, "old": folder / "old", "new": folder / "new"}
    schemas = {name: folder / f"schema_{name}.json" for name in ("six", "old")}
    _part(shapes, tables["old"], is_new=False)
    _part(shapes, tables["new"], is_new=True)
    bundle = resolve_bundle(BUNDLE)
    whole = json.loads((bundle / "configs" / "schema_texts.json").read_text())
    schemas["six"].write_text(json.dumps(whole, indent=2))
    values = whole["fields"][0]["values"]
    whole["fields"][0]["values"] = [value for value in values if value != NEW]
    schemas["old"].write_text(json.dumps(whole, indent=2))

    rows = []
    for number, seed in enumerate(chosen, start=1):
        print(f"seed {seed}, {number} of {len(chosen)}: five trainings", file=sys.stderr)
        place = {model: folder / f"seed{seed}" / model for model in MODELS}
        start = ("train", bundle, *SIZES, "--seed", seed)
        old = ("--dataset_dir", tables["old"], "--schema_file", schemas["old"])
        neutral = ("--network_def#start", "neutral", "--epochs", 12)
        _once(place["base"], *start, *old, *neutral)
        _once(place["grown"], "grow", place["base"], "--field", "task", "--value", NEW)
        further = ("--configuration", place["grown"] / "grown.json", "--epochs", 10)
        for tune in ("all", "gates", "new"):
            six = ("--dataset_dir", tables["six"], "--start_from#tune", tune)
            _once(place[tune], *start, *further, *six)
        alone = ("--dataset_dir", tables["new"], "--schema_file", schemas["six"])
        bare = ("--variant", "none", "--epochs", 58, "--val_interval", 2)
        _once(place["expert"], *start, *alone, *bare)
        for model, path in place.items():
            tested = {"base": tables["old"], "expert": tables["new"]}.get(model, tables["six"])
            if not (path / "evaluation.json").exists():
                _run("evaluate", path, "--modes", "normal", "--dataset_dir", tested)
            rows.append({"seed": seed, "model": model, **_scores(path / "counts.csv")})
    print(write_table(rows, folder / "growth.csv").read_text())


def _part(whole: Path, part: Path, is_new: bool) -> None:
    """Write the table of the new shape's images, or of the others'; images are linked."""
    rows = [row for row in _rows(whole / "table.csv") if (row["task"] == NEW) == is_new]
    part.mkdir(parents=True, exist_ok=True)
    for name in ("images", "labels"):
        if not (part / name).exists():
            (part / name).symlink_to((whole / name).resolve(), target_is_directory=True)
    write_table(rows, part / "table.csv")


def _once(output: Path, *words: object) -> None:
    """Run a command that makes a model; go on with a training, and grow no model twice."""
    if words[0] == "train":
        going_on = ("--resume", "True") if (output / "checkpoint.pt").exists() else ()
        _run(*words, "--output_dir", output, *going_on)
    elif not output.exists():
        _run(*words, "--output", output)


def _run(*words: object) -> None:
    command = [sys.executable, "-m", "metaseg_monai", *map(str, words)]
    if (code := subprocess.run(command).returncode) != 0:
        sys.exit(f"growth: {' '.join(command[1:])} ended with {code}")


def _scores(path: Path) -> dict[str, str]:
    """Return the pooled F1 of the old shapes and of the new one; empty where none was tested."""
    scores = {}
    for name, is_new in (("old_f1", False), ("new_f1", True)):
        rows = [row for row in _rows(path) if (row["domain"] == NEW) == is_new]
        tp, fp, fn = (sum(int(row[count]) for row in rows) for count in ("tp", "fp", "fn"))
        scores[name] = f"{2 * tp / (2 * tp + fp + fn):.4f}" if rows else ""
    return scores


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run_script(growth)
