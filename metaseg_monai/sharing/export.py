"""A trained model as a file that other programs run, with its metadata."""

import json
import logging
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor
from tqdm import tqdm

from metaseg_monai.bundle.overrides import SHORT, load_config
from metaseg_monai.bundle.run import configs_of, configuration_file, running
from metaseg_monai.errors import CheckpointError, ConfigError, DataError, typed
from metaseg_monai.evaluation.per_case import count_pixels
from metaseg_monai.files import absolute, new_folder, read_json
from metaseg_monai.images.identity import file_digests
from metaseg_monai.inferers import each_tensor
from metaseg_monai.inferers.engines import (
    choose,
    core_of_openvino,
    is_installed,
    open_export,
    run_compiled,
)
from metaseg_monai.inferers.exports import (
    FILES,
    MOMENT,
    OPSET,
    PARITY,
    SCHEMA,
    WEIGHTS,
    Exportable,
    Run,
    exportable,
    quiet,
    save_openvino,
    write_export,
    write_parity,
)
from metaseg_monai.metadata.fields import UNKNOWN, Continuous, Ordinal, read_number
from metaseg_monai.metrics.scores import pooled_f1
from metaseg_monai.sharing.card import read_model
from metaseg_monai.sharing.run import RECORDS, _known, export_folder, parse_metadata
from metaseg_monai.tables.check import image_files
from metaseg_monai.training import collate_cases
from metaseg_monai.training.weights import TRAINED_COLUMNS, TRAINED_ON, predicts_images
from metaseg_monai.transforms.metadata import NORMAL
from metaseg_monai.transforms.postprocessing import class_map

logger = logging.getLogger(__name__)

ZIP = "bioimageio.zip"
FORMATS = (*FILES, "bioimageio")
RDF_VERSION = "0.5.5"


@dataclass(frozen=True)
class Exported:
    """A model that was exported.

    Attributes:
        folder: with the file and parity.json.
        file: that other programs run.
        parity: what parity.json says.
    """

    folder: Path
    file: Path
    parity: Mapping[str, Any]

    def __str__(self) -> str:
        told = self.parity
        inputs = " and ".join(told["inputs"])
        lines = [f"{self.file}: {inputs} to logits, in {told['precision']}"]
        if told["precision"] == "int8":
            worst = min(told["gate"], key=lambda row: row["difference"])
            lines.append(
                f"F1 of {worst['cases']} validation cases changes by {worst['difference']:+.4f} at "
                f"worst ({worst['value']}); calibrated for {len(told['gate'])} values"
            )
        else:
            lines.append(
                f"at most {told['largest']:.1e} of the logits' range from the network, over "
                f"{len(told['values'])} metadata value(s) at {len(told['sizes'])} sizes"
            )
        if note := told.get("tested_by"):
            lines.append(note)
        prepared = told.get("preparation") or {"described": True, "spacing_mm": None}
        if not prepared["described"] or prepared["spacing_mm"]:
            lines.append(
                "a program must prepare images itself, as its README says: "
                + "; ".join(prepared["steps"])[:200]
            )
        return "\n".join(lines)


@typed
def export(
    model: str | Path,
    to: str,
    output: str | Path | None = None,
    value: str | None = None,
    *,
    precision: str = "float32",
    configuration: Any = None,
    force: bool = False,
    trust: bool = False,
    **settings: Any,
) -> Exported:
    """Write a trained model as a file that other programs run, with its metadata.

    Example:
        python -m metaseg_monai export runs/me --to onnx
        python -m metaseg_monai export runs/me --to bioimageio --value task=disc --output disc
        python -m metaseg_monai export runs/me --to openvino --precision int8

    The file has the inputs image (B, C, ...) and meta (B, M), free in batch and size, and the
    output logits; of a model that reads no metadata, or with --value, the image alone. It carries
    the schema of its metadata. Before it is written it is compared with the network, at three sizes
    for every metadata value and for unknown: parity.json beside it says how near it comes.

    Args:
        model: folder of a trained model.
        to: torchscript, onnx, torch-export, openvino or bioimageio.
        output: a new folder; by default exports/<format> in the model's, where predict --engine
            finds it.
        value: metadata to fix, field=value[,field=value], for programs with one input (ilastik,
            deepImageJ, QuPath).
        precision: float32; or int8, of openvino: quantized with the model's validation cases, and
            refused where it loses more than 0.002 of F1 for any metadata value.
        configuration: that of the training, where it changed since.
        force: let --value fix metadata that are known only after an operation, for a retrospective
            study.
        trust: as for train.
        settings: of int8, where the data of the training lie now: dataset_dir, num_workers.

    Returns:
        The folder, and what parity.json says.

    Raises:
        ConfigError: no trained model, format or precision of ours, or a network or a format that
            does not take the other; names it.
        CheckpointError: the export is not near enough to the network; nothing is written.
        DataError: the folder holds files, or the validation cases cannot be used.
        MetadataError: --value leaves out what the network was not trained to do without, or fixes
            what is known only after an operation.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to {to}: expected one of {', '.join(FORMATS)}")
    if precision not in ("float32", "int8") or (precision == "int8" and to != "openvino"):
        raise ConfigError(
            f"--precision {precision} --to {to}: exports are in float32, those to openvino also in "
            "int8 (bf16 is how predict --engine openvino runs them)"
        )
    if precision == "int8":
        choose("openvino", "int8")
        if not is_installed("nncf"):
            raise ConfigError('int8 needs nncf; pip install "metaseg-monai[engines]"')
    elif settings:
        raise ConfigError(
            f"export takes --{min(settings)} with --precision int8 only; leave it out"
        )
    if lacking := lacking_for(to):
        raise ConfigError(lacking)
    if value is not None and not value.strip(" ,"):
        raise ConfigError("--value is empty; is a variable of the shell not set?")
    fixed = None if value is None else parse_metadata(value, "--value")
    if fixed is not None and precision == "int8":
        raise ConfigError("--value with int8: fix metadata of an export in float32")
    if output is None and fixed is not None:
        raise ConfigError("--value without --output; name a folder for the export of this value")
    place = export_folder(model, to, precision) if output is None else Path(output)
    source = Source.of(model, configuration, trust)
    given, weights = source.exportable(fixed, force)
    if precision == "int8" and predicts_images(weights.recorded):
        raise ConfigError(
            f"{model} predicts images, and int8 is kept only where no mask loses F1; export it in "
            "float32, which predict --engine openvino also runs in bf16"
        )
    untrained = weights.recorded.get("untrained", {})
    if never := [f"{n}={one}" for n, one in (fixed or {}).items() if one in untrained.get(n, ())]:
        logger.warning("no training image had %s: the export answers untrained", ", ".join(never))
    with new_folder(place, replace=_is_export(place)) as part:
        if to == "bioimageio":
            about = read_json(source.bundle / "configs" / "metadata.json")
            told = _bioimageio(given, part, about, weights, _licence(source.bundle))
        else:
            told = write_export(given, to, part, show=True)
        if precision == "int8":
            told = quantized(given, part, told, source, settings)
    return Exported(place, place / (ZIP if to == "bioimageio" else FILES[to]), told)


@dataclass(frozen=True)
class Source:
    """A trained model as its record tells of it.

    Attributes:
        model: its folder.
        bundle: that it was trained by.
        further: configurations of the training.
        recorded: its settings.
        trust: run them even if they hold more than what is known to be harmless.
    """

    model: Path
    bundle: Path
    further: Any
    recorded: Mapping[str, Any]
    trust: bool = False

    @classmethod
    def of(cls, model: str | Path, configuration: Any = None, trust: bool = False) -> "Source":
        """Read what is recorded of a model.

        Raises:
            ConfigError: it is no folder of a trained model.
        """
        root, further, recorded = _known(model, configuration, None)
        if not recorded:
            raise ConfigError(
                f"{model} is no folder of a trained model ({' or '.join(RECORDS)}); give one"
            )
        return cls(absolute(model), root, further, recorded, trust)

    def exportable(
        self, value: Mapping[str, Any] | None = None, force: bool = False, **settings: Any
    ) -> tuple[Exportable, Any]:
        """What can be exported of it, with its weights (`LoadWeights`).

        Args:
            value: raw metadata to fix.
            force: see `Exportable`.
            settings: in the place of those that are recorded.
        """
        names = configs_of("inference", more=self.further)
        files = [configuration_file(self.bundle, name) for name in names]
        known = load_config(files, self.bundle).keys()
        own = {k: v for k, v in self.recorded.items() if SHORT.get(k, k).partition("#")[0] in known}
        at = {"device": "cpu", **settings, "ckpt_path": str(self.model / "model.pt")}
        doing = "is exporting the model in this folder"
        with running(self.bundle, names, at, doing, own, self.trust, run=False) as workflow:
            parser = workflow.parser
            weights = parser.get_parsed_content("weights")
            weights.load()
            channels = parser.get_parsed_content("in_channels")
            axes = len(parser.get_parsed_content("roi_size"))
            return exportable(weights, channels, axes, value, force), weights


def lacking_for(to: str) -> str:
    """What is not installed of the packages that write and compare an export; "" if all is."""
    needed = {
        "onnx": ("onnx", "onnxruntime"),
        "openvino": ("onnx", "openvino"),
        "bioimageio": ("onnx", "onnxruntime"),
    }
    for package in needed.get(to, ()):
        if not is_installed(package):
            extra = "engines" if package == "openvino" else "export"
            return f'--to {to} needs {package}; pip install "metaseg-monai[{extra}]"'
    return ""


def _is_export(folder: Path) -> bool:
    """Whether a folder holds an export and nothing else, so that a new one may replace it."""
    try:
        files = set(read_json(folder / PARITY)["files"])
        return {one.name for one in folder.iterdir()} == {*files, PARITY}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _licence(bundle: Path) -> str:
    file = bundle / "docs" / "data_license.txt"
    return file.read_text("utf-8") if file.is_file() else "The bundle does not state one.\n"


# BioImage.IO: a description, weights in two formats, test tensors, in one zip.


def _bioimageio(
    given: Exportable, folder: Path, about: Mapping[str, Any], weights: Any, licence: str
) -> dict[str, Any]:
    """Write the zip, and have it tested by bioimageio.core where that is installed."""
    parts = folder / "parts"
    told: dict[str, Any] = {}
    for kind in ("torchscript", "onnx"):
        (parts / kind).mkdir(parents=True)
        told[kind] = write_export(given, kind, parts / kind, show=True)
    size, prepared = given.sizes()[1], preparation(given, weights.recorded)
    tensors = dict(zip(given.inputs, given.given(size, 2, seed=3), strict=True))
    tensors["image"] = torch.from_numpy(prepared.stored(tensors["image"].numpy()))
    ready = {**tensors, "image": torch.from_numpy(prepared(tensors["image"].numpy()))}
    with torch.no_grad():
        tensors["logits"] = given.module(*ready.values())
    content: dict[str, bytes] = {}
    for name, tensor in tensors.items():
        np.save(parts / "tensor.npy", tensor.numpy())
        content[f"test_{name}.npy"] = (parts / "tensor.npy").read_bytes()
    content |= {f: (parts / kind / f).read_bytes() for kind in told for f in [FILES[kind]]}
    content[f"{SCHEMA}.json"] = (str(given.schema) + "\n").encode()
    content["data_license.txt"] = licence.encode()
    of_images = predicts_images(weights.recorded)
    content["README.md"] = _page(given, about, prepared, of_images).encode()
    rdf = _description(given, about, weights, tensors, told, prepared)
    content["rdf.yaml"] = (json.dumps(rdf, indent=1) + "\n").encode()  # JSON is YAML
    with zipfile.ZipFile(folder / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(name, MOMENT), data)
    note = _tested(folder / ZIP, list(told))
    for file in sorted(parts.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    parts.rmdir()
    worst = max(told.values(), key=lambda one: one["largest"])
    whole = {**worst, "format": "bioimageio", "weights": told, "tested_by": note}
    whole["preparation"] = {
        "described": prepared.is_whole,
        "steps": prepared.words,
        "spacing_mm": prepared.spacing_mm,
    }
    del whole["made_by"]
    for one in told.values():
        one.pop("versions")
    write_parity(folder, whole)
    return whole


def _tested(file: Path, formats: Sequence[str]) -> str:
    """The word of bioimageio.core's own test on each of the weights.

    Raises:
        CheckpointError: it does not pass.
    """
    if not is_installed("bioimageio.core"):
        return (
            "not tested by bioimageio.core, which is not installed; pip install "
            '"metaseg-monai[bioimageio]"'
        )
    from bioimageio.core import test_model

    with quiet():
        for kind in formats:
            summary = test_model(file, weight_format=kind)
            if summary.status != "passed":
                wrong = [
                    f"{'.'.join(map(str, error.loc))}: {error.msg}"
                    for detail in summary.details
                    for error in detail.errors
                ]
                raise CheckpointError(
                    f"bioimageio.core does not pass the export as {kind}: {'; '.join(wrong)[:500]}"
                )
    return f"bioimageio.core's test_model passes ({', '.join(formats)})"


def _description(
    given: Exportable,
    about: Mapping[str, Any],
    weights: Any,
    tensors: Mapping[str, torch.Tensor],
    parity: Mapping[str, Mapping[str, Any]],
    prepared: "Preparation",
) -> dict[str, Any]:
    """The resource description (rdf.yaml) of a model."""
    by = [b - a for a, b in zip(*sorted(given.sizes()[:2]), strict=True)]
    least = [min(one) for one in zip(*given.sizes()[:2], strict=True)]
    step = [max(abs(one), 1) for one in by]
    names = ("y", "x") if len(least) == 2 else ("z", "y", "x")
    classes = {int(k): v for k, v in (weights.recorded.get("class_names") or {}).items()}
    logits = [classes.get(one, f"class {one}") for one in range(tensors["logits"].shape[1])]
    of_images = predicts_images(weights.recorded)
    if of_images:
        logits = [f"channel {one}" for one in range(len(logits))]
    elif len(logits) > 1 and 0 not in classes:
        logits[0] = "background"

    sides: Sequence[float | None] = prepared.spacing_mm or [None] * len(names)

    def axes(channels: Sequence[str], sizes: Sequence[Any] = ()) -> list[dict[str, Any]]:
        space = [
            {
                **{"type": "space", "id": name, "size": size},
                **({} if side is None else {"scale": side, "unit": "millimeter"}),
            }
            for name, size, side in zip(names, sizes, sides, strict=False)
        ]
        channel = {"type": "channel", "channel_names": _identifiers(channels)}
        return [{"type": "batch"}, channel, *space]

    free = [{"min": int(a), "step": int(b)} for a, b in zip(least, step, strict=True)]
    same = [{"tensor_id": "image", "axis_id": name, "offset": 0} for name in names]
    inputs = [
        {
            "id": "image",
            "description": "the values that are stored"
            if prepared.is_whole
            else "the image as the model's preprocessing gives it, see README.md",
            "axes": axes([f"channel {n}" for n in range(given.in_channels)], free),
            "test_tensor": {"source": "test_image.npy"},
            "data": {"type": "float32"},
            **({"preprocessing": prepared.steps} if prepared.steps else {}),
        }
    ]
    if "meta" in tensors:
        inputs.append(
            {
                "id": "meta",
                "description": f"metadata, encoded by {SCHEMA}.json; a channel an entry",
                "axes": axes(given.schema.entry_names),
                "test_tensor": {"source": "test_meta.npy"},
                "data": {"type": "float32"},
            }
        )
    torch_version = torch.__version__.partition("+")[0]
    return {
        "format_version": RDF_VERSION,
        "type": "model",
        "name": _plain_name(str(about.get("name", "Segmentation")), _fixed(given)),
        "description": str(about.get("description", about.get("task", "")))[:1000],
        "version": str(about.get("version", "0.1.0")),
        "authors": [{"name": str(about.get("authors", "metaseg_monai contributors"))}],
        "cite": [
            {"text": "MONAI", "url": "https://github.com/Project-MONAI/MONAI"},
            *_cited(map(str, about.get("references", []))),
        ],
        "documentation": {"source": "README.md"},
        "tags": ["image-to-image" if of_images else "segmentation", "metadata", "pytorch", "unet"],
        "attachments": [{"source": f"{SCHEMA}.json"}, {"source": "data_license.txt"}],
        "config": {
            "metaseg": {
                "weights_sha256": given.weights_sha256,
                SCHEMA: given.schema.to_dict(),
                "value": None if given.value is None else dict(given.value),
                **({"scaling": weights.recorded.get("scaling")} if of_images else {}),
            }
        },
        "inputs": inputs,
        "outputs": [
            {
                "id": "logits",
                "axes": axes(logits, same),
                "test_tensor": {"source": "test_logits.npy"},
                "data": {"type": "float32"},
            }
        ],
        "weights": {
            "torchscript": {
                "source": FILES["torchscript"],
                "sha256": parity["torchscript"]["files"][FILES["torchscript"]],
                "pytorch_version": torch_version,
            },
            "onnx": {
                "source": FILES["onnx"],
                "sha256": parity["onnx"]["files"][FILES["onnx"]],
                "opset_version": OPSET,
                "parent": "torchscript",
            },
        },
    }


def _cited(references: Iterable[str]) -> Iterator[dict[str, str]]:
    """Those references that tell where they are, as a description must; README.md has all.

    >>> list(_cited(["Hu et al., doi:10.1109/CVPR.2018.00745", "Perez et al., 2018"]))
    [{'text': 'Hu et al., doi:10.1109/CVPR.2018.00745', 'doi': '10.1109/CVPR.2018.00745'}]
    """
    for text in references:
        if found := re.search(r"\b10\.\d{4,}/[^\s,;]+", text):
            yield {"text": text, "doi": found[0].rstrip(".)]")}
        elif found := re.search(r"https?://[^\s,;]+", text):
            yield {"text": text, "url": found[0].rstrip(".)]")}


def _fixed(given: Exportable) -> str:
    if given.value is None:
        return ""
    return "for " + ", ".join(f"{name} {one}" for name, one in given.value.items())


def _plain_name(name: str, more: str = "") -> str:
    """A name of letters, digits and the few signs that the description allows, 5 to 128 of them.

    >>> _plain_name("own"), _plain_name("shapes.v2", "for task=disc")
    ('own network', 'shapes v2 for task disc')
    """
    named = f"{name if len(name) >= 5 else f'{name} network'} {more}".strip()
    return "".join(one if one.isalnum() or one in " _-()+" else " " for one in named)[:128].strip()


def _identifiers(names: Sequence[str]) -> list[str]:
    """Names as identifiers, all different.

    >>> _identifiers(["task=disc", "size_mm", "2nd", "task disc"])
    ['task_disc', 'size_mm', 'entry_2nd', 'task_disc_3']
    """
    made: list[str] = []
    for number, name in enumerate(names):
        plain = "".join(one if one.isalnum() else "_" for one in name).strip("_") or "entry"
        plain = plain if plain.isidentifier() else f"entry_{plain}"
        made.append(plain if plain not in made else f"{plain}_{number}")
    return made


class Preparation(NamedTuple):
    """What a model's preprocessing does to the values of an image.

    Attributes:
        steps: as a BioImage.IO description has them; empty where it cannot say them all.
        words: the same for people, a line each.
        spacing_mm: side of a pixel by axis, which the image must have; None for any.
        is_whole: whether the steps say all that is done to the values.
    """

    steps: list[dict[str, Any]]
    words: list[str]
    spacing_mm: list[float] | None = None
    is_whole: bool = True

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return stored values (B, C, *S) as the network takes them, float32."""
        for step in self.steps:
            told = {name: _along(one, image) for name, one in step["kwargs"].items()}
            if step["id"] == "clip":
                image = image.clip(told["min"], told["max"])
            elif step["id"] == "scale_linear":
                image = image * told["gain"] + told["offset"]
            else:
                axes = tuple(range(1 if "channel" in told["axes"] else 2, image.ndim))
                mean, deviation = (of(image, axis=axes, keepdims=True) for of in (np.mean, np.std))
                image = (image - mean) / (deviation + told["eps"])
        return image.astype(np.float32)

    def stored(self, image: np.ndarray) -> np.ndarray:
        """Return values that the preparation takes to 0 to 1, or to some of that contrast."""
        for step in self.steps[::-1]:
            if step["id"] == "scale_linear":
                told = {name: _along(one, image) for name, one in step["kwargs"].items()}
                gain = np.where(np.equal(told["gain"], 0), 1, told["gain"])  # of no contrast
                image = (image - told["offset"]) / gain
        return image.astype(np.float32)


def _along(value: Any, image: np.ndarray) -> Any:
    """Numbers by channel in the shape of images (B, C, *S); others as they are."""
    by_channel = isinstance(value, list) and not isinstance(value[0], str)
    return np.reshape(value, (-1, *[1] * (image.ndim - 2))) if by_channel else value


def preparation(given: Exportable, facts: Mapping[str, Any]) -> Preparation:
    """What the preprocessing in a model's facts does to values, as far as it can be described."""
    space = ["z", "y", "x"][3 - given.spatial_dims :]
    steps: list[dict[str, Any]] = []
    words: list[str] = []
    spacing, is_whole = None, "preprocessing" in facts
    for step in facts.get("preprocessing") or []:
        if not isinstance(step, Mapping):
            continue  # of metadata
        kind = str(step["_target_"]).rpartition(".")[2].removesuffix("d")
        told = {name: one for name, one in step.items() if name != "_target_"}
        if kind == "LoadCase":
            if told.get("channels", "stored") != "stored":
                words.append(f"channels: {told['channels']}")
                is_whole = False
            continue
        if kind == "ResampleToSpacing":
            spacing = [float(told["spacing_mm"])] * given.spatial_dims
            words.append(
                f"pixels must have {told['spacing_mm']:g} mm (the scale of the axes): resample "
                "images of others before"
            )
        elif kind == "ScaleIntensityCase":
            low, high = map(float, told["intensity_range"])
            steps += [_step("clip", min=low, max=high)] * bool(told.get("clip"))
            steps += _linear([(low, high)])
            words.append(
                f"values from {low:g} to {high:g} are scaled to 0 to 1"
                + (", those beyond are cut" if told.get("clip") else "")
            )
        elif kind == "NormalizeIntensity" and not (
            told.get("nonzero")
            or told.get("subtrahend") is not None
            or told.get("divisor") is not None
        ):
            axes = space if told.get("channel_wise") else ["channel", *space]
            steps.append(_step("zero_mean_unit_variance", axes=axes, eps=1e-6))
            each = "image and channel" if told.get("channel_wise") else "image"
            words.append(f"each {each} is given mean 0 and deviation 1")
        elif kind == "ScaleIntensityBy" and (facts.get("scaling") or {}).get("image"):
            ranges = facts["scaling"]["image"]["ranges"]
            group = "/".join(str((given.value or {}).get(one)) for one in told["by"].split("/"))
            for name, of in ranges.items():
                ends = ", ".join(f"{low:g} to {high:g}" for low, high in of)
                words.append(f"values of {told['by']} {name}, by channel, to 0 to 1: {ends}")
            is_whole &= group in ranges
            if group in ranges:
                steps += [*_linear(ranges[group]), _step("clip", min=0.0, max=1.0)]
        else:
            is_whole = False
            words.append(f"{kind} {json.dumps(told)}")
    return Preparation(steps if is_whole else [], words, spacing, is_whole)


def _step(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"id": kind, "kwargs": kwargs}


def _linear(ranges: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """The step that scales ranges, one for all or one a channel, to 0 to 1; none of 0 to 1."""
    gain = [1 / (high - low) if high > low else 0.0 for low, high in ranges]
    offset = [-low * one for (low, _), one in zip(ranges, gain, strict=True)]
    if all(one == 1 for one in gain) and not any(offset):
        return []
    if len(ranges) == 1:
        return [_step("scale_linear", gain=gain[0], offset=offset[0])]
    return [_step("scale_linear", axis="channel", gain=gain, offset=offset)]


def _page(
    given: Exportable,
    about: Mapping[str, Any],
    prepared: Preparation,
    of_images: bool = False,
) -> str:
    """The documentation of a BioImage.IO model."""
    entries = [f"{place}. `{name}`" for place, name in enumerate(given.schema.entry_names)]
    meta = (
        ["It has no metadata input" + (f": {_fixed(given)}" if given.value else "") + "."]
        if "meta" not in given.inputs
        else ["`meta` (batch, entries), encoded as `metaseg_schema.json` says:", "", *entries]
    )
    lines = [
        f"# {about.get('name', 'Segmentation')}",
        "",
        str(about.get("description", "")),
        "",
        "## Inputs",
        "",
        f"`image` (batch, {given.in_channels}, ...), float32. "
        + (
            "Give the stored values; programs that follow `rdf.yaml` prepare them:"
            if prepared.is_whole
            else "**Prepare the values before**, as `rdf.yaml` cannot say it all:"
        ),
        "",
        *(f"- {one}" for one in prepared.words),
        "",
        *meta,
        "",
        "## Output",
        "",
        f"`logits`: {about.get('pred_classes', 'a channel a class')}."
        + " An image in 0 to 1, which `config.metaseg.scaling` in `rdf.yaml` takes back to the "
        "values of files." * of_images,
        "",
        "## References",
        "",
        *(f"- {one}" for one in about.get("references", [])),
        "",
        "## Licence of the training data",
        "",
        "See `data_license.txt`. The licence of the weights follows from it.",
        "",
        str(about.get("intended_use", "Research only; not a medical device.")),
    ]
    return "\n".join(lines) + "\n"


# int8: quantized by NNCF, with the model's own cases, and kept only where no value loses.

MOST_LOSS = 0.002  # of F1, for any metadata value
PER_VALUE = 12  # training cases by which the range of activations is found
BINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # quantiles of a quantity, between which cases are one value
RANKED = 40  # cases by which layers are ranked that go back to floats
REVERTED = 12  # layers at most
CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution")


@dataclass
class Case:
    """A case of a split in one test mode: what the network is given, and its label.

    Attributes:
        values: names of the metadata values that it counts for.
    """

    name: str
    image: Tensor
    label: Tensor
    meta: Tensor | None
    mode: str
    values: list[str]


class Cases:
    """The cases of a trained model's own splits, as its bundle reads them, and their scores.

    Args:
        source: the model.
        given: what is exported.
        settings: where its data lie now.
        split: whose cases are scored.
    """

    def __init__(
        self,
        source: Source,
        given: Exportable,
        settings: Mapping[str, Any],
        split: str = "val",
    ) -> None:
        self.given = given
        modes = ["normal", "missing"] if UNKNOWN in given.codes else ["normal"]
        asked = {**settings, "split": split, "modes": modes}
        doing = "is reading the cases of the model in this folder"
        names = configs_of("train", "evaluate", more=source.further)
        with running(
            source.bundle, names, asked, doing, source.recorded, source.trust, run=False
        ) as workflow:
            parser = workflow.parser
            self.inferer = parser.get_parsed_content("validate#inferer")
            of_images = "classes" not in parser
            self.classes = 1 if of_images else int(parser.get_parsed_content("classes"))
            read = Compose(parser.get_parsed_content("preprocessing"))
            if of_images:  # by the ranges that the weights know
                parser.get_parsed_content("weights").load()
                read = Compose([*read.transforms, parser.get_parsed_content("label_scaling")])
            prepare = parser.get_parsed_content("prepare_batch")
            validation = list(parser.get_parsed_content("items"))
            training = list(parser.get_parsed_content("cases").items("train"))
            self.edges = {
                one.name: _edges(one.name, validation)
                for one in given.schema.fields
                if isinstance(one, Continuous)
            }
            chosen = self._spread(training)
            self.items = {split: validation, "train": chosen}
            self.scored = [
                self._read(item, read, prepare) for item in tqdm(validation, "cases to score")
            ]
            self.training = [
                self._read(item, read, prepare) for item in tqdm(chosen, "calibration cases")
            ]
        if not self.scored or not self.training:
            raise DataError(
                "int8 needs training and validation cases; give --dataset_dir, or take float32"
            )

    def _read(self, item: Mapping[str, Any], read: Any, prepare: Any) -> Case:
        image, label, _, more = prepare(collate_cases([read(dict(item))]), torch.device("cpu"))
        meta = more.get("meta")
        mode = str(item.get("mode", NORMAL))
        image, label = (t.as_tensor() if isinstance(t, MetaTensor) else t for t in (image, label))
        raw = item.get("metadata") or {}
        return Case(str(item["case"]), image, label, meta, mode, self._values(raw, mode))

    def refuse_others(self, trained: pd.DataFrame | None) -> None:
        """Refuse images that are not those of the training, by their pixels.

        Args:
            trained: `trained_on.csv`; None, or one of an earlier release, tells nothing of pixels.

        Raises:
            DataError: names a case of another image.
        """
        if trained is None or list(trained.columns) != TRAINED_COLUMNS:
            return
        pixels = TRAINED_COLUMNS[0]
        for split, items in self.items.items():
            own = set(trained.loc[trained["split"] == split, pixels])
            of_image = {image_files(item): str(item["case"]) for item in items}
            digests = file_digests(list(of_image))
            found = zip(of_image.values(), digests, strict=True)
            if other := [case for case, digest in found if digest and digest not in own]:
                raise DataError(
                    f"int8 is tested by the validation cases of the training, and {other[0]!r} is "
                    f"no image of its split {split} ({TRAINED_ON}; {len(other)} of {len(digests)} "
                    "are not); give --dataset_dir with the data as they were"
                )

    def _values(self, raw: Mapping[str, Any], mode: str) -> list[str]:
        """The names of the metadata values of a case; "" where there are none."""
        if mode != NORMAL:
            return [UNKNOWN]
        found = []
        for one in self.given.schema.fields:
            value = raw.get(one.name)
            if one.is_missing(value):
                found.append(f"{one.name}={UNKNOWN}")
            elif isinstance(one, Continuous):
                edges, number = self.edges[one.name], read_number(value)
                if number is not None and len(edges) > 1:
                    place = int(np.clip(np.searchsorted(edges, number, "right"), 1, len(edges) - 1))
                    found.append(f"{one.name}={edges[place - 1]:g}..{edges[place]:g}")
            else:
                code = one.encode(value)
                names = zip(one.entry_names, code.tolist(), strict=True)
                on = [name for name, entry in names if entry == 1] or [f"{one.name}=mixed"]
                found += on[-1:] if isinstance(one, Ordinal) else on
        return found or [""]

    def _spread(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Training cases of every value, and of unknown."""
        order = np.random.default_rng(0).permutation(len(items))
        count: Counter[str] = Counter()
        chosen: list[dict[str, Any]] = []
        for number in order:
            item = {**items[number], "mode": NORMAL}
            values = self._values(item.get("metadata") or {}, NORMAL)
            if min(count[value] for value in values) < PER_VALUE:
                count.update(values)
                chosen.append(item)
        if UNKNOWN in self.given.codes:
            unknown = self.given.codes[UNKNOWN]
            chosen += [{**one, "mode": "missing", "meta": unknown} for one in chosen[:PER_VALUE]]
        return chosen

    def windows(self) -> list[dict[str, Any]]:
        """What the network is given for the training cases, a window each."""
        found: list[dict[str, Any]] = []
        channels = self.classes

        def keep(image: Tensor, meta: Tensor | None = None) -> Tensor:
            rows = {"meta": meta} if meta is not None else {}
            for place in range(len(image)):
                one = {"image": image, **rows}
                found.append({k: v[place : place + 1].numpy().copy() for k, v in one.items()})
            return image.new_zeros((len(image), channels, *image.shape[2:]))

        for case in self.training:
            self._infer(case, keep)
        return found

    def _infer(self, case: Case, network: Any) -> Tensor:
        metadata = {} if case.meta is None else {"meta": case.meta}
        with torch.no_grad():
            return each_tensor(self.inferer(case.image, network, **metadata))[0]

    def answer(self, run: Run, case: Case) -> Tensor:
        """What the network as `run` answers of a case, by the bundle's inferer (1, K, *S)."""
        return self._infer(case, lambda image, meta=None: run(image, meta))

    def counts(self, run: Run, cases: Sequence[Case]) -> pd.DataFrame:
        """True and false positives and false negatives of each case, mode and class."""
        rows = []
        for case in cases:
            logits = self.answer(run, case)
            pred = torch.from_numpy(class_map(logits[0]))[None]
            found = count_pixels(pred, case.label[0], self.classes)[0].tolist()
            for number, (tp, fp, fn, _) in enumerate(found, 1):
                rows.append([case.name, case.mode, number, tp, fp, fn])
        return pd.DataFrame(rows, columns=["case", "mode", "class", "tp", "fp", "fn"])

    def by_value(self, counts: pd.DataFrame, cases: Sequence[Case]) -> dict[str, float]:
        """Pooled F1 of the cases of each metadata value."""
        of_case = pd.DataFrame(
            [[case.name, case.mode, value] for case in cases for value in case.values],
            columns=["case", "mode", "value"],
        )
        parts = counts.merge(of_case, on=["case", "mode"]).groupby("value", sort=False)
        return {str(value): pooled_f1(part) for value, part in parts}

    def calibrated(self) -> dict[str, Any]:
        """Least and largest code of each entry that is in training and in validation cases."""
        ends = []
        for cases in (self.training, self.scored):
            codes = torch.cat([c.meta.flatten(0, -2) for c in cases if c.meta is not None])
            ends.append((codes.amin(0), codes.amax(0)))
        low = torch.maximum(ends[0][0], ends[1][0]).tolist()
        high = torch.minimum(ends[0][1], ends[1][1]).tolist()
        mixed = any(one.endswith("=mixed") for case in self.scored for one in case.values)
        entries = list(self.given.schema.entry_names)
        return {"entries": entries, "low": low, "high": high, "mixed": mixed}


def _edges(name: str, items: Sequence[Mapping[str, Any]]) -> list[float]:
    """Quantiles of a quantity over cases, between which they count as one value."""
    numbers = [read_number((item.get("metadata") or {}).get(name)) for item in items]
    known = [number for number in numbers if number is not None]
    return np.unique(np.quantile(known, BINS)).tolist() if known else []


def quantized(
    given: Exportable,
    folder: Path,
    told: dict[str, Any],
    source: Source,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Put a model in int8 in the place of one in float32, if no metadata value loses by it.

    NNCF finds the range of activations on training cases of every metadata value, and of unknown,
    and gives layers back to floats until the F1 of no value falls on the validation cases, where
    a quantity counts by its quartiles. The gates, which cost nothing, and the
    first and last convolution, whose errors show most, stay in floats from the beginning.

    Args:
        given: what is exported.
        folder: of the export in float32.
        told: its parity.
        source: the model.
        settings: where its data lie now.

    Returns:
        What parity.json says: with `gate`, a row for each value, and `calibrated`.

    Raises:
        DataError: no validation case has foreground.
        CheckpointError: a value loses more than `MOST_LOSS`; the folder is left to the caller.
    """
    cases = Cases(source, given, settings)
    cases.refuse_others(read_model(source.model).cases)
    if not any(bool((case.label > 0).any()) for case in cases.scored):
        raise DataError(
            f"no label of the {len({one.name for one in cases.scored})} validation cases has "
            "foreground, so that their "
            "F1 cannot tell what int8 loses; give --dataset_dir with validation cases that have "
            "some, or take float32"
        )
    os.environ.setdefault("NNCF_CI", "1")  # NNCF tells nobody of its use
    import nncf

    nncf.set_log_level(logging.ERROR)
    file = folder / FILES["openvino"]
    before = cases.counts(open_export(file, "openvino", "float32"), cases.scored)
    in_float = cases.by_value(before, cases.scored)

    def validate(model: Any, chosen: Iterable[Case]) -> tuple[float, list[float]]:
        some = list(chosen)
        counts = cases.counts(run_compiled(model), some)
        names = {(case.name, case.mode) for case in some}
        then = before[[one in names for one in zip(before["case"], before["mode"], strict=True)]]
        now, was = (cases.by_value(one, some) for one in (counts, then))
        lost = [now[value] - was[value] for value in now if was[value] == was[value]]
        each = [
            pooled_f1(counts[(counts["case"] == one.name) & (counts["mode"] == one.mode)])
            for one in some
        ]
        return 1 + min(lost, default=0.0), [0.0 if score != score else score for score in each]

    model = core_of_openvino().read_model(file)
    windows = cases.windows()
    ops = [(one.get_type_name(), one.get_friendly_name()) for one in model.get_ordered_ops()]
    convolutions = [name for kind, name in ops if kind in CONVOLUTIONS]
    in_floats = [*convolutions[:1], *convolutions[-1:]]
    in_floats += [name for kind, name in ops if kind == "MatMul"]
    made = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(windows),
        nncf.Dataset(cases.scored),
        validate,
        max_drop=MOST_LOSS / 2,  # the gate below is against float32
        drop_type=nncf.DropType.ABSOLUTE,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(windows),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=list(dict.fromkeys(in_floats))),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=REVERTED, ranking_subset_size=RANKED
        ),
    )
    inside = {SCHEMA: json.dumps(given.schema.to_dict()), WEIGHTS: given.weights_sha256}
    (folder / "int8").mkdir()  # the weights in float32 are still read from their file
    save_openvino(made, folder / "int8" / file.name, inside)
    for part in (folder / "int8").iterdir():
        part.replace(folder / part.name)
    (folder / "int8").rmdir()
    counts = cases.counts(open_export(file, "openvino", "int8"), cases.scored)
    in_int8 = cases.by_value(counts, cases.scored)
    number = Counter(value for case in cases.scored for value in case.values)
    gate: list[dict[str, Any]] = [
        {
            "value": value,
            "cases": number[value],
            "f1_float32": in_float[value],
            "f1_int8": in_int8[value],
            "difference": in_int8[value] - in_float[value],
        }
        for value in in_float
        if in_float[value] == in_float[value]
    ]
    for name in ("largest", "values", "sizes", "bound", "files", "versions"):
        told.pop(name)
    told |= {
        "precision": "int8",
        "made_by": f"{told['made_by']}, quantized by NNCF",
        "bound": MOST_LOSS,
        "gate": gate,
        "calibration_windows": len(windows),
        "in_int8": sum(one.get_type_name() == "FakeQuantize" for one in made.get_ops()),
    }
    if given.schema.fields:
        told["calibrated"] = cases.calibrated()
    worst = min(gate, key=lambda row: row["difference"])
    if worst["difference"] < -MOST_LOSS:
        raise CheckpointError(
            f"in int8 the F1 of {worst['cases']} validation cases of {worst['value'] or 'all'} "
            f"falls from {worst['f1_float32']:.4f} to {worst['f1_int8']:.4f}, by more than "
            f"{MOST_LOSS:g}, also with layers left in floats; nothing was written. Use the export "
            "in float32, which predict --engine openvino runs in bf16"
        )
    write_parity(folder, told)
    return told
