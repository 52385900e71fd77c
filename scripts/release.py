"""Train every bundle of generated data as it is by default, test it, and pack it with its scores.

What is done already is not done again, and an interrupted training goes on: the same command
continues after a kill.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai import evaluate, train
from metaseg_monai.bundle import resolve_bundle
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError, listing
from metaseg_monai.files import check_settings, read_json, write_json
from metaseg_monai.inferers.exports import PARITY
from metaseg_monai.sharing.export import FORMATS, export, lacking_for
from metaseg_monai.sharing.package import Verify, package
from metaseg_monai.sharing.run import export_folder
from metaseg_monai.training import read_weights

RECORD = "release.json"


def release(
    output: str = "runs/release",
    only: str | Sequence[str] | None = None,
    epochs: int | None = None,
    verify: Verify = "quick",
    schema: str | None = None,
    bundles: str = "bundles",
    exports: str | Sequence[str] = (),
) -> None:
    """Make OUTPUT/NAME_vVERSION.zip of every bundle that generates its data.

    With --exports also OUTPUT/parity.csv, how near each export comes to its network.

    Example:
        python scripts/release.py --output runs/release
        python scripts/release.py --only synthetic_shapes_segmentation --epochs 2 --output runs/try

    Args:
        output: folder for models and packages.
        only: names of bundles, as a,b; by default all with a configs/simulate.json. Others are
            taken by their names, too, where their data are in their place.
        epochs: of each training, for a quick try; by default those of the bundle.
        verify: as of package.
        schema: file of the schema of metadata.json, as of package.
        bundles: folder of the bundles.
        exports: formats, as torchscript,onnx; each goes to exports/<format> in the model's folder.
    """
    known = [file.parents[1].name for file in sorted(Path(bundles).glob("*/configs/train.json"))]
    generated = [one for one in known if (Path(bundles) / one / "configs/simulate.json").is_file()]
    chosen, kinds = _names(only) or generated, _names(exports)
    if strange := sorted({*chosen} - {*known}):
        raise ConfigError(f"{bundles}: no bundle {strange[0]!r}; there are {listing(known)}")
    for kind in kinds:
        if kind not in FORMATS:
            raise ConfigError(f"--exports {kind}: expected some of {', '.join(FORMATS)}")
        if lacking := lacking_for(kind):
            raise ConfigError(lacking)
    print("bundle,epochs,train_seconds,score,value,low,high,cases,package,sha256", flush=True)
    parity: list[dict[str, Any]] = []
    for name in chosen:
        folder = Path(output) / "models" / name
        record = {"bundle": name, "epochs": epochs}
        check_settings(folder / RECORD, record, free=("seconds",))
        if not _is_trained(folder):
            begun, is_begun = time.monotonic(), (folder / "checkpoint.pt").is_file()
            before = read_json(folder / RECORD)["seconds"] if (folder / RECORD).is_file() else 0
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / RECORD, {**record, "seconds": before})
            given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
            train(resolve_bundle(name, bundles), folder, resume=is_begun, **given)
            took = before + time.monotonic() - begun
            write_json(folder / RECORD, {**record, "seconds": round(took, 1)})
        if not _is_tested(folder):
            evaluate(folder)
        made = package(folder, output, verify=verify, schema=schema)
        scores = made.scores
        score = "case_mean_medmae" if "test_case_mean_medmae" in scores else "case_mean_f1"
        interval = scores.get(f"test_{score}_interval_95", ["", ""])
        told = [
            *(name, epochs or "default", read_json(folder / RECORD)["seconds"]),
            *(score, scores.get(f"test_{score}", ""), *interval, scores.get("test_cases", "")),
            *(made.archive.name, made.sha256),
        ]
        print(",".join(map(str, told)), flush=True)
        for problem in made.problems:
            print(f"# {name}: {problem}", flush=True)
        for kind in kinds:
            parity.append({"bundle": name, **_exported(folder, kind)})
            print("# {bundle}: {format} {largest:.1e}".format(**parity[-1]), flush=True)
        if kinds:
            pd.DataFrame(parity).to_csv(Path(output) / "parity.csv", index=False)


def _names(given: str | Sequence[str] | None) -> list[str]:
    """Names that a command line gives as a,b, or Python as a list."""
    names = given.split(",") if isinstance(given, str) else given or ()
    return [name.strip() for name in names]


def _exported(folder: Path, kind: str) -> dict[str, Any]:
    """What parity.json says of an export, which is made where there is none of these weights."""
    file = export_folder(folder, kind, None) / PARITY
    weights = read_weights(folder / "model.pt")[1]["weights_sha256"]
    told = read_json(file) if file.is_file() else {}
    if told.get("weights_sha256") != weights:
        told = export(folder, kind).parity
    return {
        "format": kind,
        "values": len(told["values"]),
        "sizes": " ".join("x".join(map(str, one["size"])) for one in told["sizes"]),
        "largest": told["largest"],
        "torch_to_float64": told["torch_to_float64"],
        "bound": told["bound"],
        "weights_sha256": weights,
    }


def _is_trained(folder: Path) -> bool:
    """Whether the record of a training is that of the weights beside it."""
    file = folder / "training.json"
    if not file.is_file():
        return False
    described = json.loads(file.read_text(encoding="utf-8"))["weights_sha256"]
    return bool(read_weights(folder / "model.pt")[1]["weights_sha256"] == described)


def _is_tested(folder: Path) -> bool:
    file = folder / "evaluation.json"
    weights = read_weights(folder / "model.pt")[1]["weights_sha256"]
    return file.is_file() and read_json(file)["weights_sha256"] == weights


if __name__ == "__main__":
    run_script(release)
