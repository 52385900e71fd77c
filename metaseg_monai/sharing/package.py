"""A bundle as one file that others can use, and that was tried as they will use it."""

import csv
import functools
import gzip
import hashlib
import http.server
import io
import json
import logging
import re
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import nibabel as nib
import numpy as np
import PIL.Image
import tifffile
import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from metaseg_monai.bundle.compose import STAGES, format_config
from metaseg_monai.bundle.overrides import SHORT, as_data, flatten, load_config, read_config
from metaseg_monai.bundle.run import configs_of, configuration_file
from metaseg_monai.errors import CheckpointError, ConfigError, DataError, typed
from metaseg_monai.evaluation.per_case import SPACING
from metaseg_monai.files import absolute, file_sha256, replacing, writable
from metaseg_monai.images.image import image_format, image_suffix
from metaseg_monai.images.nifti import nifti_without_texts
from metaseg_monai.images.read import read_image
from metaseg_monai.images.tiff import Resolution, tiff_pixel_um, tiff_resolution
from metaseg_monai.images.write import TIFF
from metaseg_monai.inferers import each_tensor
from metaseg_monai.inferers.exports import FILES, MOMENT, Exportable, write_export
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, Ordinal
from metaseg_monai.owners import owned
from metaseg_monai.sharing.card import Model, model_card, results_of
from metaseg_monai.sharing.check_bundle import (
    LARGEST,
    METADATA,
    PERSONAL,
    SUMS,
    Rule,
    environment,
    run_alone,
    zoo_rules,
)
from metaseg_monai.sharing.export import Source, lacking_for
from metaseg_monai.sharing.run import PLACES, _known
from metaseg_monai.sharing.vendored import Code, renamed, vendored
from metaseg_monai.tables.find import find_cases
from metaseg_monai.training.weights import (
    NAME,
    TRAINED_ON,
    read_weights,
    target_of,
    text_of,
)
from metaseg_monai.transforms import IntensityStatistics, ScaleIntensityBy

logger = logging.getLogger(__name__)
Verify = Literal["quick", "full", "no"]

SAMPLES = 3
OF_RUN = ("resume", "device", "num_workers", "output_dir")  # settings that no package keeps
UNSTATED = "To be filled in"  # how a page of `new-bundle` on the licence of data begins


@dataclass(frozen=True)
class Packaged:
    """A package.

    Attributes:
        archive: the zip.
        sha256: of it.
        rules: of the model zoo and of the ways of use that were tried.
        remarks: what it holds and what was left out.
        scores: of the test of its weights, as in metadata.json; empty without one.
    """

    archive: Path
    sha256: str
    rules: list[Rule] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """That of the archive."""
        return self.archive.parent

    @property
    def problems(self) -> list[Rule]:
        """The rules that are not kept."""
        return [rule for rule in self.rules if rule.verdict == "fail"]

    def __str__(self) -> str:
        size = f"{self.archive.stat().st_size / 1e6:.1f} MB"
        told = [*self.remarks, *map(str, self.rules)]
        return "\n".join([*told, f"package: {self.archive} ({size})", f"sha256: {self.sha256}"])


@typed
def package(
    bundle: str | Path,
    output: str | Path,
    *,
    samples: str | Path | None = None,
    data_license: str | Path | None = None,
    training_list: bool = False,
    verify: Verify = "quick",
    schema: str | Path | None = None,
    bundles: str | Path | None = None,
    trust: bool = False,
) -> Packaged:
    """Pack a trained model, or a bundle, as a zip that works where only MONAI is.

    It has the layout of MONAI's model zoo, the code that the bundle runs, exact versions of the
    packages it needs, and the SHA-256 of every file; no training data, no list of the training
    images, and no path of this machine. The same input gives the same bytes.

    Example:
        python -m metaseg_monai package runs/shapes/me --output releases

    Args:
        bundle: folder of a trained model; or name or folder of a bundle, whose models/model.pt is
            packed if it is there.
        output: folder for NAME_vVERSION.zip.
        samples: table or folder whose first cases are packed as sample inputs, with their metadata,
            written anew without the texts in their files;
            by default images that the bundle's simulator draws with another seed, or noise.
        data_license: text file on the licence of the data, in place of the bundle's own.
        training_list: also pack trained_on.csv: digest, group and case of each training image. It
            lets others see whether a case was trained on, and tells names of cases.
        verify: quick runs the package with this interpreter and without metaseg_monai; full also
            in an empty environment with the listed packages: inference, an epoch of training,
            load, create_workflow and download; no tries nothing.
        schema: file of the schema of metadata.json, to check it by.
        bundles: folder in which a bundle's name is looked for.
        trust: as for train.

    Returns:
        The archive, its SHA-256 and what was verified.

    Raises:
        ConfigError: no such model or bundle, its data licence is not stated, a needed package has
            no version, or it names Python that cannot be packed.
        DataError: another package of this name and version is there, a path of this machine would
            be in it, or it does not run by itself.
        CheckpointError: the weights are damaged, of something else, or were exchanged meanwhile.
    """
    root, further, recorded = _known(bundle, None, bundles)
    model = Path(bundle) if recorded else root / "models"
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        if (model / "model.pt").is_file():
            stack.enter_context(owned(model, "is packing the model in this folder"))
        source = _Source(root, model, recorded, configs_of(more=further), trust)
        archive = absolute(output) / f"{root.name}_v{source.metadata['version']}.zip"
        folder = Path(place) / root.name
        remarks = source.write(folder, samples, data_license, training_list)
        source.refuse_exchanged(folder)
        _refuse_paths(folder, source.places)
        _write_sums(folder)
        content = _zipped(folder)
        rules: list[Rule] = []
        if verify != "no":
            rules = _verified(content, root.name, schema, source.has_weights, verify == "full")
    digest = hashlib.sha256(content).hexdigest()
    if archive.is_file() and file_sha256(archive) != digest:
        raise DataError(
            f"{archive}: another package of this name and version is there; give another folder, "
            f"or another version in {root / METADATA} and its changelog"
        )
    with writable(archive), replacing(archive) as part:
        part.write_bytes(content)
    return Packaged(archive, digest, rules, remarks, source.scores())


class _Source:
    """What a package is made of.

    Args:
        root: folder of the bundle.
        model: folder with model.pt, if it is there.
        recorded: settings of the training, as a model's folder records them.
        further: names of configurations that were merged in it.
        trust: whether what is not listed may be run.
    """

    def __init__(
        self,
        root: Path,
        model: Path,
        recorded: Mapping[str, Any],
        further: Sequence[str],
        trust: bool,
    ) -> None:
        self.root, self.model, self.trust = root, model, trust
        self.further = list(further)
        self.recorded = dict(recorded)
        self.settings = {SHORT.get(k, k): v for k, v in recorded.items() if not _is_place(k)}
        self.metadata = read_config(root / METADATA)
        self.has_weights = (model / "model.pt").is_file()
        self.card: Model | None = None
        self.facts: Mapping[str, Any] = {}
        if self.has_weights:
            facts = read_weights(model / "model.pt")[1]
            self.card = Model(root, model / "model.pt", facts, self.metadata)
            self.facts = facts
        given = [value for _, value in flatten(dict(recorded)) if isinstance(value, str)]
        texts = [value for value in given if Path(value).is_absolute()]
        known = [root, absolute(model), Path.home(), Path.cwd(), Path(tempfile.gettempdir())]
        self.places = sorted({*texts, *(str(path) for path in known if len(path.parts) > 1)})

    def write(
        self,
        folder: Path,
        samples: str | Path | None,
        data_license: str | Path | None,
        training_list: bool,
    ) -> list[str]:
        """Write all files of the package but the list of checksums; return remarks."""
        configs = self.configs()
        schema = self.schema()
        remarks = []
        if dropped := [name for name in self.recorded if _is_place(name) and name not in OF_RUN]:
            remarks.append(f"places of this machine are not packed: {', '.join(sorted(dropped))}")
        if mapped := [one for one in configs.values() if one.get("columns_file")]:
            for config in mapped:  # of `new-bundle`
                config["columns_file"] = None
            remarks.append(
                "the column map of your table is not packed: in tables of others, columns are "
                "named image, label and as the fields in schema.json"
            )
        if (self.root / "configs" / "simulate.json").is_file():
            configs["simulate"] = read_config(self.root / "configs" / "simulate.json")
        told = self._samples(folder / "samples", configs, schema, samples)
        if told:
            configs["inference"]["dataset_dir"] = "$@bundle_root + '/samples'"
            remarks.append(f"samples: {told}")
        code = vendored(configs.values(), self.root.name)
        self._check_named(configs, code)
        metadata = self._metadata(configs["train"], schema)
        for name, config in {**configs, "metadata": metadata}.items():
            text = format_config(renamed(config, NAME, code.name))
            _write(folder / "configs" / f"{name}.json", f"{text}\n".encode())
        schema.save(folder / "configs" / "schema.json")
        for place, content in code.files.items():
            _write(folder / place, content)
        for name in ("LICENSE", "configs/logging.conf"):
            if (self.root / name).is_file():
                _write(folder / name, (self.root / name).read_bytes())
        _write(folder / "docs" / "data_license.txt", self._data_license(data_license))
        requirements = _requirements(metadata)
        _write(folder / "requirements.txt", "".join(f"{one}\n" for one in requirements).encode())
        if self.has_weights:
            remarks += self._models(folder / "models", training_list)
        page = self._page(metadata, _use(code, told, self.has_weights))
        own = _demoted(self.root / "docs" / "README.md")
        _write(folder / "docs" / "README.md", f"{page}\n{own}".encode())
        large = [path for path in sorted(folder.rglob("*")) if path.stat().st_size > LARGEST]
        if large := [path for path in large if path.is_file()]:
            _write(folder / "large_files.yml", _large_files(folder, large).encode())
        return remarks

    def refuse_exchanged(self, folder: Path) -> None:
        """Refuse a package whose weights, facts and exports are not of one model.

        Raises:
            CheckpointError: another program exchanged the weights meanwhile.
        """
        if not self.has_weights:
            return
        exported = self.__dict__.get("_exportable")  # where they were made
        digests = {self.facts["weights_sha256"], *([exported.weights_sha256] if exported else [])}
        if read_weights(folder / "models" / "model.pt")[1] != self.facts or len(digests) > 1:
            raise CheckpointError(
                f"{self.model / 'model.pt'}: the weights were exchanged while they were packed; "
                "nothing was written. Pack again once nothing writes there"
            )

    def configs(self) -> dict[str, dict[str, Any]]:
        """The workflows of the bundle with the settings of the training in their places."""
        further = [configuration_file(self.root, name) for name in self.further]
        found = {}
        for stage in STAGES:
            file = self.root / "configs" / f"{stage}.json"
            if not file.is_file():
                continue
            is_whole = stage in ("train", "inference")
            config = load_config([file, *further], self.root) if is_whole else read_config(file)
            changes = dict(self.settings)
            if not is_whole:  # what it changes of the training, and a further one does, too
                changes = {
                    name: value
                    for other in further
                    for name, value in read_config(other).items()
                    if name in config
                } | changes
            parser = ConfigParser(config)
            for name, value in changes.items():
                top = name.lstrip("+").partition("#")[0]
                if "#" in name and name in config:  # of a delta, which MONAI merges by its ids
                    config[name] = value
                elif name in config or (top in config and (is_whole or "#" in name)):
                    merge_kv(parser, name, value)
            found[stage] = parser.get()
        return found

    def schema(self) -> MetadataSchema:
        """That of the weights, else of the bundle."""
        if self.facts.get("schema"):
            return MetadataSchema.from_dict(self.facts["schema"])
        return MetadataSchema.load(self.root / "configs" / "schema.json")

    def _check_named(self, configs: Mapping[str, Any], code: Code) -> None:
        """Refuse what a configuration names and the package would not have."""
        pins = {name.lower() for name in self.metadata.get("required_packages_version", {})}
        known = {*pins, *(name.replace("-", "_") for name in pins), "monai", "torch", "numpy"}
        known |= {"ignite", "skimage", "PIL", NAME}
        if lacking := sorted(code.needs - pins):
            raise ConfigError(
                f"{self.root / METADATA}: required_packages_version has no {', '.join(lacking)}, "
                "which the bundle needs; add the exact version"
            )
        for name, config in configs.items():
            for place, value in flatten(config):
                target = value.get("_target_") if isinstance(value, Mapping) else None
                top = target.partition(".")[0] if isinstance(target, str) and "." in target else ""
                if top and top not in known and top not in sys.stdlib_module_names:
                    raise ConfigError(
                        f"configs/{name}.json, {place}: {target} is of no package that "
                        f"required_packages_version in {self.root / METADATA} lists; add the exact "
                        "version, or leave this part out. Python of your own is not packed"
                    )

    def _metadata(self, train: Mapping[str, Any], schema: MetadataSchema) -> dict[str, Any]:
        """metadata.json with what the weights tell: sizes, classes, fields, scores."""
        metadata = json.loads(json.dumps(self.metadata))
        pins = metadata.get("required_packages_version", {})
        metadata["required_packages_version"] = {k: v for k, v in pins.items() if k != DISTRIBUTION}
        told = metadata["network_data_format"]
        for one, channels in (
            (told["inputs"]["image"], train.get("in_channels")),
            (told["outputs"]["pred"], train.get("classes") or self._answers()),
        ):
            if isinstance(channels, int) and channels != one["num_channels"]:
                one["num_channels"] = channels
                names = {str(number): f"channel {number}" for number in range(channels)}
                first = one["channel_def"] if train.get("target") == "image" else {}
                one["channel_def"] = {name: first.get(name, names[name]) for name in names}
            if isinstance(train.get("roi_size"), list):
                one["spatial_shape"] = train["roi_size"]
        names = self.facts.get("class_names") or {}
        if len(names) == told["outputs"]["pred"]["num_channels"]:
            told["outputs"]["pred"]["channel_def"] = as_data(names)
        if "meta" in told["inputs"]:
            entries = {str(i): as_data(entry) for i, entry in enumerate(schema.entry_names)}
            told["inputs"]["meta"] |= {"num_channels": schema.width, "channel_def": entries}
            if not schema.fields:
                del told["inputs"]["meta"]
        if scores := self.scores():
            metadata["eval_metrics"] = scores
        return metadata

    @functools.cached_property
    def _exportable(self) -> Exportable:
        """What can be exported of the weights.

        Raises:
            ConfigError: nothing can, as of a control of studies.
        """
        source = Source(self.model, self.root, self.further, self.recorded, self.trust)
        with tempfile.TemporaryDirectory() as place:
            return source.exportable(dataset_dir=place, output_dir=f"{place}/out")[0]

    def _answers(self) -> int | None:
        """How many channels the network answers with; None without weights, or if none tells."""
        try:
            given = self._exportable if self.has_weights else None
        except ConfigError:
            return None
        if given is None:
            return None
        with torch.no_grad():
            answer = given.module(*given.given(given.sizes()[0], 1))
        return int(next(iter(each_tensor(answer))).shape[1])

    def scores(self) -> dict[str, Any]:
        """What the test of these very weights gave; nothing where there is none."""
        results = None if self.card is None else results_of(self.card)
        if results is None or results.record["split"] != "test" or results.record.get("members"):
            return {}
        found: dict[str, Any] = {}
        name = "case_mean_medmae" if results.of_images else "case_mean_f1"
        others = ("psnr", "ssim", "pearson") if results.of_images else ("pooled_f1",)
        for mode, end in (("normal", ""), ("missing", "_missing_metadata")):
            if mode in results.scores.index:
                row = results.row(mode)
                found |= {
                    f"test_{name}{end}": row[name],
                    f"test_{name}{end}_interval_95": [row["low"], row["high"]],
                    **{f"test_{other}{end}": row[other] for other in others},
                    f"test_cases{end}": row["cases"],
                }
        finite = {name: one for name, one in found.items() if np.isfinite(one).all()}
        return {name: np.round(one, 4).tolist() for name, one in finite.items()}

    def _data_license(self, given: str | Path | None) -> bytes:
        file = self.root / "docs" / "data_license.txt" if given is None else Path(given)
        if given is not None and not file.is_file():
            raise ConfigError(f"--data_license {given}: no such file; give a text of the licence")
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: no text in UTF-8 ({error}); save it as such") from error
        if not text.strip() or text.startswith(UNSTATED):
            raise ConfigError(
                f"{file}: says nothing on the licence of the data; write there who may use the "
                "images, labels and metadata, and weights trained on them, or give --data_license"
            )
        return text.encode()

    def _models(self, folder: Path, training_list: bool) -> list[str]:
        """Write weights, facts and exports; return remarks."""
        _write(folder / "model.pt", (self.model / "model.pt").read_bytes())
        _write(folder / "model.json", text_of(self.facts).encode())
        remarks = [f"weights: {self.facts['weights_sha256']}"]
        listed = self.model / TRAINED_ON
        if training_list and listed.is_file():
            _write(folder / TRAINED_ON, listed.read_bytes())
            remarks.append(f"{TRAINED_ON}: digests, groups and names of the training cases")
        return [*remarks, *self._exports(folder)]

    def _exports(self, folder: Path) -> list[str]:
        """Write model.ts, and model.onnx where ONNX is installed; return remarks."""
        remarks, told = [], []
        try:
            given = self._exportable
        except ConfigError as error:  # of a control of studies, for one
            return [f"exports are left out: {error}"]
        with tempfile.TemporaryDirectory() as place:
            for kind in ("torchscript", "onnx"):
                part = Path(place) / kind
                part.mkdir()
                try:
                    if lacking := lacking_for(kind):
                        raise ConfigError(lacking)
                    parity = write_export(given, kind, part)
                except (ConfigError, CheckpointError) as error:
                    remarks.append(f"{FILES[kind]} is left out: {error}")
                    continue
                _write(folder / FILES[kind], (part / FILES[kind]).read_bytes())
                told.append(f"{FILES[kind]} (parity {parity['largest']:.1e})")
        return [f"exports: {', '.join(told) or 'none'}", *remarks]

    def _page(self, metadata: Mapping[str, Any], use: str) -> str:
        """The card of the weights; without weights how the bundle is used."""
        if self.card is not None:
            return model_card(replace(self.card, about=metadata), use)
        about = f"# {metadata['name']}\n\n{metadata['description']}\n"
        return f"{about}\n## How to use it\n\n{use}"

    def _samples(
        self,
        folder: Path,
        configs: Mapping[str, Any],
        schema: MetadataSchema,
        given: str | Path | None,
    ) -> str:
        """Write sample inputs with a table; return what they are, "" where there are none."""
        axes = len(configs["train"]["roi_size"])
        if given is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cases = find_cases(given, schema, unknown_trained=True)
            chosen = _predictable(cases, self.facts)[:SAMPLES]
            _write_cases(folder, chosen, schema, axes)
            return f"{len(chosen)} cases of {Path(given).name}, their values and place alone"
        if "simulate" in configs:
            return _simulated(folder, configs["simulate"], schema, self.facts, axes)
        return _noise(folder, self.facts, configs["train"], schema)


DISTRIBUTION = NAME.replace("_", "-")


def _is_place(name: str) -> bool:
    return name.endswith(PLACES) or name in OF_RUN


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _requirements(metadata: Mapping[str, Any]) -> list[str]:
    """Exact versions, as the zoo's CI installs them."""
    versions = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    return [f"{name}=={version}" for name, version in versions.items()]


def _large_files(folder: Path, large: Sequence[Path]) -> str:
    """The list that the zoo wants of files which its repository does not take."""
    lines = ["large_files:"]
    for path in large:
        lines += [
            f'- path: "{path.relative_to(folder).as_posix()}"',
            '  url: ""  # it is in the archive; put here where you lay it beside the others',
            f'  hash_val: "{file_sha256(path)}"',
            '  hash_type: "sha256"',
        ]
    return "\n".join([*lines, ""])


def _use(code: Code, samples: str, has_weights: bool) -> str:
    """How to use the package."""
    inference = "python -m monai.bundle run --config_file configs/inference.json"
    lines = [
        "This bundle needs MONAI and the packages in `requirements.txt`, and nothing else. Work in "
        "its folder, or",
        f"put that folder on PYTHONPATH: the code in `{code.name}` belongs to it.",
        "",
        "```",
        "pip install -r requirements.txt",
        inference,
        f"{inference} --dataset_dir images --output_dir predicted",
        "python -m monai.bundle run training --config_file configs/train.json --dataset_dir data",
        "```",
        "",
        *([f"The first inference predicts the samples: {samples}.", ""] if samples else []),
        "A folder of images, or a table with the column `image` and one for each field of "
        "`configs/schema.json`, is",
        "read; `--metadata \"{'field': 'value'}\"` gives one value for all images. The "
        "configuration and the code of a",
        "bundle are programs: run those of people whom you trust.",
        "",
    ]
    if has_weights:
        lines += [
            "`models/model.json` tells network, schema, preprocessing and versions. The exports",
            "take `image` and, where the network reads metadata, `meta`, in any number, and in any",
            "size that the network halves evenly; their key `metaseg_schema` tells the code of",
            "`meta`.",
            "",
        ]
    return "\n".join(lines)


def _demoted(page: Path) -> str:
    """The bundle's own page as a section of another."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    told = (f"#{line}" if line[:1] == "#" else line for line in lines)
    return "\n".join(["## The bundle", "", *told]).rstrip() + "\n" if lines else ""


# Samples.


def _write_cases(
    folder: Path, cases: Sequence[Mapping[str, Any]], schema: MetadataSchema, axes: int
) -> None:
    """Write images of 2 or 3 axes anew, under neutral names, with a table of their metadata."""
    rows = []
    (folder / "images").mkdir(parents=True)
    for number, case in enumerate(cases, 1):
        files = case["image"] if isinstance(case["image"], list) else [case["image"]]
        names = []
        for plane, file in enumerate(map(Path, files)):
            part = f"_{plane}" if len(files) > 1 else ""
            written = _without_texts(file, folder / "images", f"sample_{number}{part}", axes)
            names.append(f"images/{written.name}")
        metadata = case.get("metadata") or {}
        values = {name: _cell(metadata.get(name)) for name in schema.names}
        told = case.get("columns") or {}
        sizes = {name: told[name] for name in SPACING if told.get(name)}  # a TIFF may not tell
        rows.append({"image": ";".join(names), **sizes, **values})
    _write_table(folder, rows)


def _without_texts(file: Path, folder: Path, name: str, axes: int) -> Path:
    """Write an image's values and their place, and nothing else that its file says.

    Free texts (of NIfTI, EXIF, OME, TIFF, PNG, and every plane of a DICOM series) may name people.

    Raises:
        DataError: the file that was written would be read as another image.
    """
    kind = image_format(file)
    dims = axes if kind in ("tiff", "ome-zarr") else None  # the others tell their own
    array, told = read_image(file, dims)
    spacing, is_stack = told["spacing_mm"], array.ndim == 4
    if kind == "nifti":
        path = folder / f"{name}{image_suffix(file)}"
        content = nifti_without_texts(file)
    elif kind == "dicom" or (kind == "ome-zarr" and is_stack and spacing is not None):
        path = folder / f"{name}.nii.gz"
        affine = told["affine"] if kind == "dicom" else np.diag([*(spacing or ()), 1.0])
        content = nib.Nifti1Image(array[0], affine).to_bytes()
    elif kind in ("png", "jpeg"):
        path, stream = folder / f"{name}.png", io.BytesIO()
        pixels = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
        PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "png")
        content = stream.getvalue()
    else:
        path, stream = folder / f"{name}.tif", io.BytesIO()
        resolution = tiff_resolution(file)
        if kind == "ome-zarr" and spacing is not None:
            per_cm = (10 / spacing[1], 10 / spacing[0])
            resolution = Resolution(per_cm, tifffile.RESUNIT.CENTIMETER)
        pixels, order = (np.moveaxis(array, -1, 1), "CZYX") if is_stack else (array, "CYX")
        tifffile.imwrite(
            stream,
            pixels[0] if len(pixels) == 1 else pixels,
            resolution=resolution and resolution.per_unit,
            resolutionunit=resolution and resolution.unit,
            metadata={"axes": order[1:] if len(pixels) == 1 else order},
            software=False,
            **TIFF,
        )
        content = stream.getvalue()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    _write(path, content)
    again, place = read_image(path, dims if path.suffix == ".tif" else None), told
    if path.suffix == ".tif":  # whose reader leaves the size of pixels to others
        place = {**told, "spacing_mm": None}
        side = tiff_pixel_um(file) if kind == "tiff" else spacing and 1000 * spacing[0]
    if not (
        again.array.dtype == array.dtype
        and np.array_equal(again.array, array, equal_nan=array.dtype.kind == "f")
        and all(_is_near(again.attributes[one], place[one]) for one in ("affine", "spacing_mm"))
        and (path.suffix != ".tif" or _is_near(tiff_pixel_um(path), side))
    ):
        raise DataError(
            f"{file}: cannot be packed without the texts in its file, as {path.suffix} does not "
            "hold its values or their place; give other samples"
        )
    return path


def _is_near(one: Any, other: Any) -> bool:
    """Whether two places are the same, as float32 rounds; one that only the copy knows is none."""
    return other is None or (one is not None and np.allclose(one, other, rtol=1e-5, atol=1e-6))


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _write_table(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(folder / "table.csv", stream.getvalue().encode())


def _predictable(
    cases: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The cases that weights answer: images are predicted of the groups they were trained on."""
    told = (facts.get("scaling") or {}).get("label")
    if told is None:
        return list(cases)
    known = IntensityStatistics(**{**told, "percentiles": (*told["percentiles"],)})
    scaling = ScaleIntensityBy(known.by, known.percentiles, known, "label")
    return [one for one in cases if getattr(scaling.learned([one]), "ranges", None)]


def _simulated(
    folder: Path,
    recipe: Mapping[str, Any],
    schema: MetadataSchema,
    facts: Mapping[str, Any],
    axes: int,
) -> str:
    """Draw images as the training's were, with another seed: none of them was trained on."""
    arguments = {name: one for name, one in recipe.items() if name not in ("_target_", "output")}
    few = min(int(arguments.get(split, 0)) for split in ("train", "val", "test"))
    arguments |= dict.fromkeys(("train", "val", "test"), few)
    arguments["seed"] = int(arguments.get("seed", 0)) + 1
    with tempfile.TemporaryDirectory() as place, redirect_stdout(io.StringIO()):
        target_of(recipe["_target_"])(output=f"{place}/drawn", **arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cases = find_cases(f"{place}/drawn", schema, unknown_trained=True)
        told: list[Mapping[str, Any]] = []
        tested = [one for one in cases if one.get("split") == "test"]
        for case in _predictable(tested, facts):
            if case["metadata"] not in [other["metadata"] for other in told]:
                told.append(case)
        _write_cases(folder, told[:SAMPLES], schema, axes)
    return f"{len(told[:SAMPLES])} images drawn by the bundle's simulator, seed {arguments['seed']}"


def _noise(
    folder: Path, facts: Mapping[str, Any], train: Mapping[str, Any], schema: MetadataSchema
) -> str:
    """Noise of the values of the training's images, to try a package of data that stay private."""
    channels = (facts.get("intensity") or {}).get("channels") or []
    size = train.get("roi_size")
    if len(channels) != 1 or not isinstance(size, list):
        return ""
    random = np.random.default_rng(0)
    within = channels[0]["percentiles"]
    stored = next((one for one in facts["intensity"]["stored"]), "float32")
    stored = stored if stored in ("uint8", "uint16", "int16") else "float32"
    rows = []
    (folder / "images").mkdir(parents=True)
    for number in range(1, SAMPLES):
        values = random.uniform(within["0.5"], within["99.5"], size)
        pixels = values.astype(stored) if stored == "float32" else values.round().astype(stored)
        if len(size) == 2:
            name = f"images/sample_{number}.tif"
            tifffile.imwrite(folder / name, pixels, photometric="minisblack", metadata=None)
        else:
            name = f"images/sample_{number}.nii"
            nib.save(nib.Nifti1Image(pixels, np.eye(4)), folder / name)
        rows.append({"image": name, **{one.name: _some_value(one) for one in schema.fields}})
    _write_table(folder, rows)
    return f"{len(rows)} images of noise, to try it; the training's images are not packed"


def _some_value(one: Any) -> str:
    if isinstance(one, Categorical | Ordinal):
        return str(one.values[0])
    if isinstance(one, Continuous):
        return str(sum(one.range) / 2)
    return ""


# What is written last.


def _refuse_paths(folder: Path, places: Sequence[str]) -> None:
    """Refuse a package in which a path of this machine stands, also inside of its archives."""
    known = [place.encode() for place in places]
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        parts = [content]
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                parts += [archive.read(name) for name in archive.namelist()]
        found = [place for place in known for part in parts if _has_path(part, place)]
        name = path.relative_to(folder).as_posix()
        if not found and path.suffix in (".json", ".md", ".txt", ".csv"):
            found = [match[1].encode() for match in PERSONAL.finditer(content.decode("utf-8"))]
        if found:
            raise DataError(
                f"{name} of the package would hold a path of this machine, "
                f"{found[0].decode(errors='replace')}; take it out of the bundle's files or of the "
                "settings of the training, and pack again"
            )


def _has_path(content: bytes, place: bytes) -> bool:
    return re.search(re.escape(place) + rb"(?![\w.-])", content) is not None


def _write_sums(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    _write(folder / SUMS, "".join(lines).encode())


def _zipped(folder: Path) -> bytes:
    """The folder as an archive that has it as its only one, the same for the same content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix()):
            if path.is_file():
                inside = path.relative_to(folder.parent).as_posix()
                one = zipfile.ZipInfo(inside, MOMENT)
                one.compress_type = zipfile.ZIP_DEFLATED
                one.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(one, path.read_bytes())
    return stream.getvalue()


# Verifying: the package as others will have it.


def _verified(
    content: bytes, name: str, schema: str | Path | None, has_weights: bool, full: bool
) -> list[Rule]:
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / f"{name}.zip"
        archive.write_bytes(content)
        folder = Path(place) / "there" / name
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder.parent)
        block = f"import sys; sys.modules[{NAME!r}] = None; "
        rules = []
        if has_weights:
            _infer(folder, [sys.executable, "-c", f"{block}{RUN}"])
            rules.append(Rule(f"inference runs without {NAME}", "pass"))
        rules += zoo_rules(folder, schema, without=NAME)
        if full:
            python = _empty_environment(Path(place) / "environment", folder)
            options = [] if schema is None else ["--schema", str(absolute(schema))]
            with _served(archive) as address:
                calls = ["--use", "--archive", str(archive), "--address", address]
                told = run_alone(folder, [*options, *calls], python)
            rules += [Rule(f"{rule.rule}, in an empty environment", *rule[1:]) for rule in told]
            if has_weights:
                _infer(folder, [str(python), "-m", "monai.bundle"])
                rules.append(Rule("inference, in an empty environment", "pass"))
            if (folder / "configs" / "simulate.json").is_file():
                _train(folder, [str(python), "-m", "monai.bundle"])
                rules.append(Rule("an epoch of training, in an empty environment", "pass"))
    return rules


RUN = "import runpy; runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"


def _infer(folder: Path, program: Sequence[str]) -> None:
    """Predict the samples, and see that each has a mask."""
    rows = (folder / "samples" / "table.csv").is_file()
    if not rows:
        return
    with tempfile.TemporaryDirectory() as output:
        options = ["--config_file", "configs/inference.json", "--output_dir", output]
        _call([*program, "run", *options], folder, "inference")
        count = len((folder / "samples" / "table.csv").read_text("utf-8").splitlines()) - 1
        masks = (Path(output) / "predicted.sha256").read_text(encoding="utf-8").splitlines()
        made = [
            path
            for path in Path(output).iterdir()
            if path.suffix in (".tif", ".png", ".gz", ".nii")
        ]
        if len(made) != count:
            raise DataError(
                f"the package predicts {len(made)} of its {count} samples ({masks[:1]}); see "
                "problems.csv of a prediction with monai.bundle"
            )


def _train(folder: Path, program: Sequence[str]) -> None:
    """An epoch of training on the data that the bundle generates, small."""
    with tempfile.TemporaryDirectory() as output:
        options = ["--config_file", "configs/train.json", "--output_dir", output, "--epochs", "1"]
        _call([*program, "run", "training", *options], folder, "training")
        if not (Path(output) / "model.pt").is_file():
            raise DataError("training in the package leaves no model.pt; see its log")


def _call(command: Sequence[str], folder: Path, what: str) -> None:
    done = subprocess.run(
        list(command), cwd=folder, env=environment(PYTHONPATH=""), capture_output=True, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise DataError(
            f"the package does not run by itself: {what} ends with "
            f"{' '.join((lines or ['no word'])[-1].split())[:400]}; nothing was written. Mend the "
            "bundle, or look with --verify no"
        )


def _empty_environment(place: Path, folder: Path) -> Path:
    """An environment with what requirements.txt lists, CPU wheels where pip finds them."""
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "-q", "-r", str(folder / "requirements.txt")],
    ):
        done = subprocess.run(
            command, env=environment(PYTHONPATH=""), capture_output=True, text=True
        )
        if done.returncode:
            told = " ".join((done.stderr.strip().splitlines() or ["no word"])[-1].split())
            raise DataError(
                f"{quote(' '.join(command[:4]))} ... ends with {told[:300]}; --verify quick needs "
                "no environment"
            )
    return python


@contextmanager
def _served(archive: Path) -> Iterator[str]:
    """The address of a file on this machine, while the block runs."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"
        finally:
            server.shutdown()
