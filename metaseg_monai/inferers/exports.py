"""A trained network as a file that other programs run, and how near it comes to the network."""

import copy
import hashlib
import importlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from metaseg_monai.errors import CheckpointError, ConfigError, DataError, MetadataError
from metaseg_monai.files import file_sha256, write_json
from metaseg_monai.inferers.sliding import each_tensor
from metaseg_monai.metadata.fields import (
    UNKNOWN,
    AnyField,
    Categorical,
    Continuous,
    MultiLabel,
    Ordinal,
)
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.networks.meta_input import reads_meta
from metaseg_monai.networks.sizes import sizes_of

logger = logging.getLogger(__name__)

FILES = {
    "torchscript": "model.ts",
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
    "openvino": "model.xml",
}
PARITY = "parity.json"  # beside an export: of which weights it is, and how near to them
OWN_DIGEST = "parity_sha256"  # in it, of all else that it says
SCHEMA, WEIGHTS = "metaseg_schema", "metaseg_weights_sha256"  # keys inside the files
BOUND = 1e-5  # of the range of the logits, by which an export may differ from the network
# OpenVINO adds up the 27 C terms of a convolution of volumes in one chain, so that each has three
# times the rounding of PyTorch's; the normalisations of a deep DynUNet carry on 9e-6 to 1.5e-5.
BOUND_OF_VOLUMES = 3e-5
OPSET = 17
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a quantity's range that are tried
PASSES = (1, 3, 8)  # images at once, at each of the three sizes
MOMENT = (1980, 1, 1, 0, 0, 0)  # of every file in an archive, so that the same makes the same

Run = Callable[[Tensor, Tensor | None], Tensor]


@dataclass
class Exportable:
    """A network with all that an export of it tells.

    Args:
        network: trained; a copy of it is exported, on the CPU in float32.
        schema: of the metadata it reads; one without fields where it reads none.
        weights_sha256: of its weights.
        in_channels: of images.
        spatial_dims: axes of images.
        unknown_trained: whether it knows unknown metadata.
        value: raw metadata that are fixed in the export, which then has the image alone as input.
        force: fix metadata that are known only after an operation.

    Attributes:
        module: what is exported.
        codes: metadata (M,) by name of which the export is tried: every value of every field,
            quantiles of quantities, and unknown; {"": None} where there is no such input.

    Raises:
        ConfigError: the network answers with several tensors.
        MetadataError: `value` is not what the schema says, is unknown where the network was not
            trained for that, or has a field that is known only after an operation.
    """

    network: nn.Module
    schema: MetadataSchema
    weights_sha256: str
    in_channels: int
    spatial_dims: int
    unknown_trained: bool = False
    value: Mapping[str, Any] | None = None
    force: bool = False
    module: nn.Module = field(init=False)
    codes: dict[str, Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        bare = copy.deepcopy(self.network).cpu().float().eval().requires_grad_(False)
        bare = bare.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.codes = {"": None}
        self.module = bare
        if not self.schema.fields:
            return
        if self.value is None:
            self.codes = dict(codes_of(self.schema, self.unknown_trained))
        else:
            self.schema.check_availability(force=self.force)
            fields = self.schema.fields
            missing = [one.name for one in fields if one.needs_unknown(self.value.get(one.name))]
            if missing and not self.unknown_trained:
                raise MetadataError(
                    f"--value has no value of {', '.join(missing)}, and this network was trained "
                    "without metadata dropout; fix every field, or train with --metadata_dropout "
                    "0.1"
                )
            fixed = torch.from_numpy(self.schema.encode(self.value))
            self.module = OneInput(bare, fixed).eval()

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return ["image"] if self.codes.keys() == {""} else ["image", "meta"]

    def given(self, size: Sequence[int], images: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Some inputs: images (B, C, *S) of noise in 0 to 1, metadata (B, M) in turn."""
        generator = torch.Generator().manual_seed(seed)
        image = torch.rand(images, self.in_channels, *size, generator=generator)
        rows = [one for one in self.codes.values() if one is not None]
        if not rows:
            return (image,)
        return image, torch.stack([rows[number % len(rows)] for number in range(images)])

    def sizes(self) -> list[tuple[int, ...]]:
        """Three sizes that the network takes: two of other proportions, the last odd if it may be.

        Raises:
            ConfigError: no size is found that it takes.
        """
        image, *meta = self.given([2] * self.spatial_dims, 1)
        found = sizes_of(self.module, image, meta)
        if found is None:
            raise ConfigError(
                f"{type(self.network).__name__}: no size of images is found that it takes, so that "
                "it cannot be exported for any size; export a network that takes several"
            )
        by = found.factors
        least = [max(2 * one, size) for one, size in zip(by, found.following, strict=True)]
        second = [size + one for size, one in zip(least, by, strict=True)]
        odd = [size + 2 * one + 1 for size, one in zip(least, by, strict=True)]
        sizes = [(least[0], *second[1:]), (second[0], *least[1:])]
        try:
            with torch.no_grad():
                self.module(*self.given(odd, 1))
        except (RuntimeError, ValueError):  # of networks that do not halve it
            odd = [size + 2 * one for size, one in zip(least, by, strict=True)]
        return [*sizes, tuple(odd)]


def exportable(
    weights: Any,
    in_channels: int,
    spatial_dims: int,
    value: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Exportable:
    """What can be exported of weights that were loaded.

    Args:
        weights: the `LoadWeights` of the network.
        in_channels: of images.
        spatial_dims: axes of images.
        value: raw metadata to fix.
        force: see `Exportable`.

    Raises:
        ConfigError: the network is a control that was trained with zeros for metadata, or reads
            none that could be fixed.
    """
    network = getattr(weights.network, "module", weights.network)
    told = weights.recorded
    if str(told.get("variant", "")).endswith("-dummy"):
        raise ConfigError(
            f"{told['variant']} is a control of studies, whose metadata are zeros whatever is "
            "given; export the variant itself"
        )
    reads = reads_meta(network)
    if value is not None and not reads:
        raise ConfigError(
            f"--value is for models that read metadata, and {told.get('variant', 'this')} reads "
            "none: its export has the image alone as input anyway; leave it out"
        )
    schema = weights.schema if reads and weights.schema is not None else MetadataSchema([])
    if reads and not schema.fields:
        raise ConfigError(f"{type(network).__name__} reads metadata without a schema; give one")
    return Exportable(
        network,
        schema,
        told["weights_sha256"],
        in_channels,
        spatial_dims,
        bool(told.get("unknown_trained")),
        value,
        force,
    )


class OneInput(nn.Module):
    """A network for images alone: its metadata are fixed."""

    def __init__(self, network: nn.Module, meta: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("meta", meta[None])
        self.meta: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, *S) of images (B, C, *S)."""
        return self.network(image, self.meta.expand(image.shape[0], -1))


def codes_of(schema: MetadataSchema, unknown_trained: bool) -> Iterator[tuple[str, Tensor]]:
    """Metadata (M,) for every value of every field, one after the other, and for unknown.

    The other fields are unknown where the network knows that, else as their first value says.

    >>> field = {"kind": "categorical", "name": "task", "values": ["disc", "ring"],
    ...          "provenance": "acquisition", "availability": "acquisition"}
    >>> {name: code.tolist() for name, code in codes_of(MetadataSchema([field]), False)}
    {'task=disc': [1.0, 0.0], 'task=ring': [0.0, 1.0]}
    """
    others = {one.name: _first(one, unknown_trained) for one in schema.fields}
    for one in schema.fields:
        for name, value in _values(one):
            code = schema.encode({**others, one.name: value})
            yield f"{one.name}={name}", torch.from_numpy(code)
    if unknown_trained and schema.knows_unknown:
        yield UNKNOWN, torch.from_numpy(schema.unknown())


def _first(field: AnyField, unknown_trained: bool) -> Any:
    may_be_unknown = unknown_trained and field.missing == "unknown"
    return UNKNOWN if may_be_unknown else next(value for _, value in _values(field))


def _values(field: AnyField) -> Iterator[tuple[str, Any]]:
    if isinstance(field, Categorical | Ordinal):
        yield from ((name, name) for name in field.values)
    elif isinstance(field, MultiLabel):
        yield from ((name, [name]) for name in field.values)
        yield "all", list(field.values)
    elif isinstance(field, Continuous):
        low, high = field.range
        for share in QUANTILES:
            entry = np.array([share], np.float32)
            number = min(max(field.decode_value(entry), low), high)  # as float32 rounds
            yield f"{number:.4g}", number
    else:
        width = len(field.value_entry_names)
        yield "0", [0.0] * width
        yield "1", [1.0] * width


# Writing.


def write_export(given: Exportable, kind: str, folder: Path, show: bool = False) -> dict[str, Any]:
    """Export a network into a folder, and see that the file gives what the network gives.

    Args:
        given: what is exported.
        kind: torchscript, onnx, torch-export or openvino.
        folder: that gets the file, see `FILES`, and `parity.json`.
        show: a progress bar.

    Returns:
        What `parity.json` says.

    Raises:
        ConfigError: the format does not take this network; says why.
        CheckpointError: the file differs from the network by more than `BOUND`, that of volumes in
            OpenVINO by more than `BOUND_OF_VOLUMES`.
    """
    file = folder / FILES[kind]
    how = _written(given, kind, file)
    told = {
        "format": kind,
        "made_by": how,
        "precision": "float32",
        "inputs": given.inputs,
        "output": "logits",
        "value": None if given.value is None else dict(given.value),
        "weights_sha256": given.weights_sha256,
        "network": type(given.network).__name__,
        **measured(given, open_any(file, kind), show),
    }
    told["bound"] = bound = (
        BOUND_OF_VOLUMES if kind == "openvino" and given.spatial_dims == 3 else BOUND
    )
    if told["largest"] > bound:
        name, off = max(told["values"].items(), key=lambda one: one[1])
        raise CheckpointError(
            f"{type(given.network).__name__} as {kind} differs from the network by "
            f"{told['largest']:.1e} of the range of its logits, more than {bound:g} "
            f"({name or 'no metadata'}: {off:.1e}; PyTorch itself, from float64: "
            f"{told['torch_to_float64']:.1e}); nothing was written. Take another --to"
        )
    write_parity(folder, told)
    return told


def write_parity(folder: Path, told: dict[str, Any]) -> None:
    """Write what is known of an export beside it, with digests of its files."""
    names = ("torch", "metaseg_monai", "onnx", "onnxruntime", "openvino", "nncf")
    told["files"] = {
        file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.name != PARITY
    }
    told["versions"] = {name: of for name in names if (of := _version(name))}
    write_json(folder / PARITY, told | {OWN_DIGEST: digest_of(told)})


def digest_of(told: Mapping[str, Any]) -> str:
    """SHA-256 of what parity.json says, by which a change in it is seen."""
    content = {name: one for name, one in told.items() if name != OWN_DIGEST}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package.replace("_", "-"))
    except ImportError:
        return None


def _written(given: Exportable, kind: str, file: Path) -> str:
    """Write the file; say how it was made."""
    inside = {
        SCHEMA: json.dumps(given.schema.to_dict(), ensure_ascii=False),
        WEIGHTS: given.weights_sha256,
    }
    inputs = given.given(given.sizes()[1], 2)
    with torch.no_grad():
        if len(each_tensor(given.module(*inputs))) != 1:
            raise ConfigError(
                f"{type(given.network).__name__} answers with several tensors, and an export has "
                "one output, logits; export a network that answers with one when it is not trained"
            )
    try:
        with quiet(), torch.no_grad():
            return _WRITERS[kind](given, inputs, file, inside)
    except (ConfigError, ImportError, OSError):
        raise
    except Exception as error:  # whatever an exporter says of a network
        told = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{type(given.network).__name__} cannot be exported to {kind} "
            f"({type(error).__name__}: {told}); take another --to"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own remarks, on code that is not ours, from the user."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "torch.export")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _torchscript(
    given: Exportable, inputs: tuple[Tensor, ...], file: Path, inside: dict[str, str]
) -> str:
    how = "script"
    try:
        made = torch.jit.script(given.module)
    except Exception as error:  # a network that TorchScript cannot read is recorded instead
        logger.info("%s is traced: %s", type(given.network).__name__, str(error)[:200])
        made, how = torch.jit.trace(given.module, inputs, check_trace=False), "trace"
    stream = io.BytesIO()
    torch.jit.save(made, stream, _extra_files=dict(inside))
    with (  # without the paths of its sources, which also differ where the network does not
        zipfile.ZipFile(stream) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target,
    ):
        for one in source.infolist():
            if not one.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(one.filename, MOMENT), source.read(one))
    return f"torch.jit.{how}"


def _onnx(given: Exportable, inputs: tuple[Tensor, ...], file: Path, inside: dict[str, str]) -> str:
    onnx: Any = importlib.import_module("onnx")
    axes = {0: "batch", **{2 + axis: f"size{axis}" for axis in range(given.spatial_dims)}}
    free = {"image": axes, "meta": {0: "batch"}, "logits": axes}
    torch.onnx.export(
        given.module,
        inputs,
        file,
        input_names=given.inputs,
        output_names=["logits"],
        dynamic_axes={name: free[name] for name in (*given.inputs, "logits")},
        opset_version=OPSET,
        dynamo=False,  # the newer exporter fixes sizes of some networks
    )
    model = onnx.load(file)
    onnx.helper.set_model_props(model, inside)
    for node in model.graph.node:
        node.doc_string = ""  # may hold the path of a source
    file.write_bytes(model.SerializeToString(deterministic=True))
    return f"torch.onnx.export, opset {OPSET}"


def _torch_export(
    given: Exportable, inputs: tuple[Tensor, ...], file: Path, inside: dict[str, str]
) -> str:
    auto = torch.export.Dim.AUTO
    image = dict.fromkeys((0, *range(2, inputs[0].ndim)), auto)
    shapes = (image, {0: auto})[: len(inputs)]
    made = torch.export.export(given.module, inputs, dynamic_shapes=shapes, strict=False)
    torch.export.save(made, file, extra_files=dict(inside))
    return "torch.export.export"


def _openvino(
    given: Exportable, inputs: tuple[Tensor, ...], file: Path, inside: dict[str, str]
) -> str:
    from metaseg_monai.inferers.engines import core_of_openvino

    openvino = core_of_openvino()
    onnx_file = file.with_suffix(".onnx")
    how = _onnx(given, inputs, onnx_file, inside)
    model = openvino.read_model(onnx_file)
    save_openvino(model, file, inside)
    onnx_file.unlink()
    return f"{how}, read by OpenVINO"


def save_openvino(model: Any, file: Path, inside: Mapping[str, str]) -> None:
    """Write a model of OpenVINO in its own precision, with texts among its rt_info."""
    openvino: Any = importlib.import_module("openvino")
    for name, text in inside.items():
        model.set_rt_info(text, name)
    openvino.save_model(model, file, compress_to_fp16=False)


_WRITERS = {
    "torchscript": _torchscript,
    "onnx": _onnx,
    "torch-export": _torch_export,
    "openvino": _openvino,
}


# Parity.


def open_any(file: Path, kind: str) -> Run:
    """A function of images and metadata that runs an exported file in float32 on the CPU."""
    from metaseg_monai.inferers.engines import open_export

    if kind in ("onnx", "openvino"):
        return open_export(file, {"onnx": "onnxruntime"}.get(kind, kind))
    with quiet():
        made: Any = (
            torch.jit.load(file) if kind == "torchscript" else torch.export.load(file).module()
        )

    def run(image: Tensor, meta: Tensor | None) -> Tensor:
        with torch.no_grad(), quiet():
            return made(image) if meta is None else made(image, meta)

    return run


def measured(given: Exportable, run: Run, show: bool = False) -> dict[str, Any]:
    """How far an export is from the network, at three sizes, for every metadata value.

    Distances are the largest difference of a logit, divided by the range of the network's logits
    over all values at that size.

    Returns:
        `largest`; `values`, the largest by name; `sizes`, a row each; `torch_to_float64`, the
        distance of the network itself from its computation in float64.

    Raises:
        DataError: the network gives values that are not finite.
    """
    exact = copy.deepcopy(given.module).double()
    of_values = dict.fromkeys(given.codes, 0.0)
    rounding = 0.0
    rows: list[dict[str, Any]] = []
    for number, size in enumerate(tqdm(given.sizes(), "parity", disable=not show, unit="size")):
        names = list(given.codes)
        images = given.given(size, len(names), seed=number)[0]
        expected, found = [], []
        for start in range(0, len(names), PASSES[number]):
            part = names[start : start + PASSES[number]]
            image = images[start : start + PASSES[number]]
            codes = [code for name in part if (code := given.codes[name]) is not None]
            meta = torch.stack(codes) if codes else None
            arguments = (image,) if meta is None else (image, meta)
            with torch.no_grad():
                expected.append(given.module(*arguments))
                exactly = exact(*(one.double() for one in arguments))
            found.append(_checked_run(run, image, meta, size))
            rounding = max(rounding, float((expected[-1] - exactly).abs().max()))
        of_network, of_export = torch.cat(expected), torch.cat(found)
        if not bool(of_network.isfinite().all()):
            raise DataError(
                f"{type(given.network).__name__} gives logits that are not finite; train it anew"
            )
        span = float(of_network.max() - of_network.min()) or 1.0
        off = (of_export - of_network).abs().flatten(1).amax(1) / span
        off = torch.where(off.isfinite(), off, torch.inf)
        for name, one in zip(names, off.tolist(), strict=True):
            of_values[name] = max(of_values[name], one)
        rows.append(
            {
                "size": list(size),
                "images_at_once": min(PASSES[number], len(names)),
                "range": span,
                "largest": float(off.max()),
                "torch_to_float64": rounding / span,
            }
        )
        rounding = 0.0
    return {
        "largest": max(row["largest"] for row in rows),
        "torch_to_float64": max(row["torch_to_float64"] for row in rows),
        "values": of_values,
        "sizes": rows,
    }


def _checked_run(run: Run, image: Tensor, meta: Tensor | None, size: Sequence[int]) -> Tensor:
    try:
        return run(image, meta)
    except Exception as error:  # whatever an engine says of a size
        told = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the export does not run on {len(image)} image(s) of {tuple(size)} "
            f"({type(error).__name__}: {told}), so that it is not free in batch and size; take "
            "another --to"
        ) from error
