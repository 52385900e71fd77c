"""Engines that run an exported network in the place of PyTorch, inside the same windows."""

import importlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from metaseg_monai.errors import CheckpointError, ConfigError, MetadataError, listing
from metaseg_monai.files import file_sha256, read_json
from metaseg_monai.inferers.exports import (
    FILES,
    OWN_DIGEST,
    PARITY,
    WEIGHTS,
    Run,
    digest_of,
    exportable,
    write_export,
)
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.multi_head import MultiHeadUnet3

ENGINES = ("torch", "onnxruntime", "openvino")
PRECISIONS = {
    "torch": ("float32", "bf16"),
    "onnxruntime": ("float32",),
    "openvino": ("float32", "bf16", "int8"),
}
USUAL = {"torch": "bf16", "onnxruntime": "float32", "openvino": "bf16"}  # where none is asked for
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino"}  # that an engine runs
HINTS = {"float32": "f32", "bf16": "bf16"}
TOLERANCE = 1e-6  # of a metadata entry beyond those that were calibrated


def choose(
    engine: str, precision: str | None = None, device: torch.device | str = "cpu"
) -> tuple[str, str | None]:
    """The engine and precision that are meant, once they can be had here.

    ``auto`` is PyTorch on a GPU; on a CPU the first that is installed of OpenVINO in bf16, if the
    processor has such instructions, ONNX Runtime, OpenVINO in float32 and PyTorch: the order of
    speed that `scripts/benchmark_engines.py` found. It is not measured anew, as a folder of masks
    must have one engine, also where its prediction goes on later.

    Args:
        engine: torch, onnxruntime, openvino or auto.
        precision: float32, bf16 or int8. None: of torch what the bundle says (its AutocastInferer),
            else bf16 of openvino and float32 of onnxruntime. Never int8.
        device: on which PyTorch would run.

    Returns:
        The engine, and its precision; None for what a bundle says.

    Raises:
        ConfigError: there is no such engine or precision, or not here.

    >>> choose("torch"), choose("torch", "float32")
    (('torch', None), ('torch', 'float32'))
    """
    if engine not in (*ENGINES, "auto"):
        raise ConfigError(f"engine {engine!r}: expected one of {', '.join(ENGINES)} or auto")
    if engine == "auto" and precision == "int8":
        raise ConfigError("--engine auto never takes int8; say --engine openvino")
    if engine == "auto":
        there = [one for one in ("openvino", "onnxruntime") if is_installed(one)]
        if precision is not None:
            there = [one for one in there if precision in PRECISIONS[one]]
        if torch.device(device).type != "cpu" or not is_installed("onnx") or not there:
            return choose("torch", precision)
        if precision is None and "openvino" in there and not has_bf16():
            precision = "float32"
        if precision == "float32":
            there.reverse()
        return choose(there[0], precision)
    if precision is not None and precision not in PRECISIONS[engine]:
        raise ConfigError(
            f"precision {precision!r} with engine {engine}: expected one of "
            f"{', '.join(PRECISIONS[engine])}; int8 is for openvino"
        )
    if engine == "torch":
        return engine, precision
    if not is_installed(engine):
        extra = {"onnxruntime": "export", "openvino": "engines"}[engine]
        raise ConfigError(
            f'engine {engine} is not installed; pip install "metaseg-monai[{extra}]", or take '
            "--engine torch"
        )
    wanted = precision or USUAL[engine]
    if engine == "openvino" and wanted == "bf16" and not has_bf16():
        raise ConfigError(
            "this processor has no instructions for bf16, so openvino would silently compute in "
            "float32; say so: --precision float32"
        )
    return engine, wanted


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is a part of
        return False


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor."""
    return "BF16" in core_of_openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Runner(nn.Module):
    """A network as an engine runs it, called as it is itself: network(image, meta).

    With torch it is the network. Else an export of the same weights takes its place, which `begin`
    makes, or sees to be one; metadata are checked as the network does. An export in int8 is refused
    for metadata that it was not calibrated for.

    Args:
        network: whose weights `begin` is told of; runs nothing where an engine does.
        engine: see `choose`; auto is none here.
        precision: likewise.
        exported: folder of an export, for the other engines; by default it is made in a temporary
            folder, unless it is to be in int8.
        encode: the `EncodeMetadatad` of the cases to come, which then refuses metadata that were
            not calibrated, case by case.
        inferer: around the network; it, or one that it wraps, tells what precision None is.
        in_channels: of images, which an export needs to know.
        spatial_dims: axes of images, likewise.

    Attributes:
        told: `engine` and `precision`, for records of what was made.
        is_plain: whether the network runs as the bundle says.

    Raises:
        ConfigError: as `choose`, or `exported` is no export of such an engine.
    """

    def __init__(
        self,
        network: nn.Module,
        engine: str = "torch",
        precision: str | None = None,
        exported: str | Path | None = None,
        encode: Any = None,
        inferer: Any = None,
        in_channels: int = 1,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if engine not in ENGINES:
            raise ConfigError(
                f"engine {engine!r}: expected one of {', '.join(ENGINES)} (auto is one of the "
                "command predict)"
            )
        engine, precision = choose(engine, precision)
        self.engine, self.precision = engine, precision
        self.is_plain = engine == "torch" and precision is None
        self.told: dict[str, Any] = {"engine": engine, "precision": precision or _own(inferer)}
        self.network = network
        self.calibrated: CalibratedCodes | None = None
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self._run: Run | None = None
        self._folder = None if exported is None else Path(exported)
        self._parity: dict[str, Any] = {}
        if engine == "torch":
            return
        if self._folder is not None:
            self._parity = read_parity(self._folder, engine, self.told["precision"])
        elif precision == "int8":
            raise ConfigError(
                "precision int8 runs an export that was calibrated: export MODEL --to openvino "
                "--precision int8, and give its folder as --exported"
            )
        if self._folder is not None and precision == "int8":
            self.told["exported_sha256"] = self._parity["files"][FILES["openvino"]]
            if "calibrated" in self._parity:  # of a network that reads metadata
                self.calibrated = CalibratedCodes(self._parity["calibrated"], self._folder)
            if encode is not None:
                encode.calibrated = self.calibrated

    def begin(self, weights: Any) -> None:
        """Begin to run an export: one made now, or the one given, if it is of these weights.

        Of several weights each gets a runner of its own in their ensemble.

        Args:
            weights: the `LoadWeights` that has loaded those of the network.

        Raises:
            ConfigError: the export given is of one of several, or the network cannot be exported.
            CheckpointError: the export is of other weights, was changed, or is not near enough.
        """
        if self.is_plain:
            return
        if weights.members and self._folder is not None:
            raise ConfigError(
                f"{self._folder} is an export of one model, and there are several; leave "
                "--exported out (and --precision int8): each is exported for this run"
            )
        for number, member in enumerate(weights.members):
            runner = Runner(
                member.network,
                self.engine,
                self.precision,
                in_channels=self.in_channels,
                spatial_dims=self.spatial_dims,
            )
            runner.begin(member)
            weights.ensemble.networks[number] = runner
        if self.engine == "torch":
            return
        kind = FORMATS[self.engine]
        if self._folder is not None:
            self._check(weights.recorded["weights_sha256"])
            self._open(self._folder / FILES[kind], weights.recorded["weights_sha256"])
            return
        with tempfile.TemporaryDirectory() as folder:
            given = exportable(weights, self.in_channels, self.spatial_dims)
            write_export(given, kind, Path(folder))
            self._open(Path(folder) / FILES[kind], given.weights_sha256)

    def _open(self, file: Path, weights_sha256: str) -> None:
        try:
            self._run = open_export(file, self.engine, str(self.told["precision"]), weights_sha256)
        except CheckpointError:
            raise
        except Exception as error:  # whatever an engine says of a file that is none of its kind
            raise CheckpointError(
                f"{file}: {self.engine} cannot open it ({_told(error)}); export the model anew"
            ) from error

    def _check(self, weights_sha256: str) -> None:
        folder: Any = self._folder
        if (of := self._parity["weights_sha256"]) != weights_sha256:
            raise CheckpointError(
                f"{folder} is an export of other weights ({of[:12]}) than those that are to "
                f"predict ({weights_sha256[:12]}); export the model anew"
            )
        for name, digest in self._parity["files"].items():
            file = folder / name
            if not file.is_file() or file_sha256(file) != digest:
                raise CheckpointError(
                    f"{file}: not as it was exported ({PARITY}); export the model anew"
                )

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Any:
        """Logits (B, K, *S) of images (B, C, *S) and metadata (B, M), or None where it reads none.

        Raises:
            MetadataError: a row of metadata is not what was calibrated.
            ConfigError: the export has not begun.
        """
        given = {} if meta is None else {"meta": meta}
        if self.engine == "torch":
            if self.precision is None:
                return self.network(image, **given)
            on = self.precision == "bf16"
            with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=on):
                return self.network(image, **given)
        if self._run is None:
            raise ConfigError("an export runs once it has begun; call Runner.begin before")
        rows = checked_rows(self.network, image, meta)
        if self.calibrated is not None and rows is not None:
            self.calibrated.check(rows)
        try:
            logits = self._run(image, rows)
        except Exception as error:  # whatever an engine says of its input, or of memory
            raise CheckpointError(
                f"{self.engine} does not run the export on {len(image)} image(s) of "
                f"{tuple(image.shape[1:])} ({_told(error)}); export the model anew, or take "
                "--engine torch"
            ) from error
        return logits.to(image.device)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _own(inferer: Any) -> str:
    """The precision that inferers around each other run a network in."""
    while inferer is not None:
        if getattr(inferer, "dtype", None) == "bfloat16":
            return "bf16"
        inferer = getattr(inferer, "inferer", None)
    return "float32"


def checked_rows(network: nn.Module, image: Tensor, meta: Tensor | None) -> Tensor | None:
    """The metadata (B, M) that a network would take, checked by its own door; an export has none.

    Raises:
        ValueError: as `MetaInput`.
        MetadataError: a row names no head of a network of several.
    """
    plain = meta.as_tensor() if isinstance(meta, MetaTensor) else meta
    for module in network.modules():
        if isinstance(module, MultiHeadUnet3):
            return module.checked(plain, image.shape[0])
        if isinstance(module, MetaInput):
            return module(plain, image)
    return plain


class CalibratedCodes:
    """Which metadata an export in int8 was calibrated and tested for.

    Args:
        told: `low` and `high` (M,), the least and largest code of each entry, their `entries`, and
            `mixed`, whether a case was of several values of a field at once.
        place: of the export, for messages.
    """

    def __init__(self, told: Mapping[str, Sequence[Any]], place: str | Path) -> None:
        self.low, self.high = (torch.tensor(told[name]) for name in ("low", "high"))
        self.entries, self.place = list(told["entries"]), place
        self.whole = torch.tensor(["=" in entry and not told["mixed"] for entry in self.entries])

    def check(self, rows: Tensor, case: str = "") -> None:
        """Refuse codes (..., M) that were not calibrated.

        Args:
            rows: of metadata.
            case: whose, for the message.

        Raises:
            MetadataError: names their entries.
        """
        found = rows.detach().cpu().float().reshape(-1, len(self.entries))
        beyond = (found < self.low - TOLERANCE) | (found > self.high + TOLERANCE)
        beyond |= self.whole & ((found - found.round()).abs() > TOLERANCE)  # of several values
        if bool(beyond.any()):
            names = [self.entries[entry] for entry in beyond.any(0).nonzero()[:, 0].tolist()]
            raise MetadataError(
                f"{case and f'case {case!r}: '}the int8 export {self.place} was not calibrated for "
                f"these metadata ({listing(names, 5, str)}); use --precision bf16 or float32, or "
                "export anew with validation cases that have them"
            )


def read_parity(folder: Path, engine: str, precision: str) -> dict[str, Any]:
    """What an export tells of itself, if this engine can run it so.

    Raises:
        ConfigError: it cannot, or it is no export.
    """
    kind, file = FORMATS[engine], folder / PARITY
    if not file.is_file():
        raise ConfigError(
            f"{folder} is no export ({PARITY} is missing); make one: export MODEL --to {kind} "
            f"--output {folder}"
        )
    try:
        told = read_json(file)
        if OWN_DIGEST not in told:
            raise ValueError("it is of an earlier release")
        if told[OWN_DIGEST] != digest_of(told):
            raise ValueError("it was changed")
        made, value = str(told["precision"]), told["value"]
        _ = told["format"], told["weights_sha256"]
        files = {str(name): str(digest) for name, digest in dict(told["files"]).items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: damaged ({error}); export the model anew") from error
    is_int8 = precision == "int8"
    if told["format"] != kind or (made == "int8") != is_int8 or value is not None:
        fixed = f" for {value}" if value is not None else ""
        raise ConfigError(
            f"{folder} is an export to {told['format']} in {made}{fixed}, and {engine} in "
            f"{precision} takes one to {kind}{' in int8' if is_int8 else ' in float32'}; name that "
            "with --exported, or leave it out"
        )
    needed = {FILES[kind]} | ({"model.bin"} if kind == "openvino" else set())
    if not needed <= files.keys() or any("/" in name or "\\" in name for name in files):
        raise ConfigError(
            f"{file}: damaged (its list of files is not that of an export); export the model anew"
        )
    return told


def open_export(
    path: Path, engine: str, precision: str = "float32", weights_sha256: str | None = None
) -> Run:
    """A function of images (B, C, *S) and metadata (B, M) that runs an exported file on the CPU.

    It takes as many threads as PyTorch.

    Args:
        path: of model.onnx or model.xml.
        engine: onnxruntime or openvino.
        precision: see `choose`; what is not int8 in an export in int8 is bf16 where the processor
            has that, else float32.
        weights_sha256: of the weights that the file must say it is of; None takes any.

    Raises:
        CheckpointError: it says that it is of others, or nothing.
        Exception: whatever the engine says of a file that it cannot open.
    """
    if engine == "onnxruntime":
        return _onnxruntime(path, weights_sha256)
    hint = HINTS.get(precision) or ("bf16" if has_bf16() else "f32")
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    core = core_of_openvino()
    model = core.read_model(path)
    if weights_sha256 is not None:
        inside = model.get_rt_info(WEIGHTS).astype(str) if model.has_rt_info(WEIGHTS) else None
        _check_inside(path, inside, weights_sha256)
    return run_compiled(core.compile_model(model, "CPU", settings))


def _check_inside(path: Path, inside: str | None, weights_sha256: str) -> None:
    """Refuse an export that holds other weights than the list beside it says."""
    if inside != weights_sha256:
        raise CheckpointError(
            f"{path}: says that it is of {'no' if inside is None else 'other'} weights"
            f"{'' if inside is None else f' ({inside[:12]})'}, and those that are to predict are "
            f"{weights_sha256[:12]}; export the model anew"
        )


def run_compiled(compiled: Any) -> Run:
    """A function of images and metadata that runs a compiled model of OpenVINO."""

    def run(image: Tensor, meta: Tensor | None) -> Tensor:
        return torch.from_numpy(compiled(_feed(image, meta))[0])

    return run


def _onnxruntime(path: Path, weights_sha256: str | None) -> Run:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    if weights_sha256 is not None:
        inside = session.get_modelmeta().custom_metadata_map.get(WEIGHTS)
        _check_inside(path, inside, weights_sha256)

    def run(image: Tensor, meta: Tensor | None) -> Tensor:
        return torch.from_numpy(session.run(["logits"], _feed(image, meta))[0])

    return run


def _feed(image: Tensor, meta: Tensor | None) -> dict[str, Any]:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    given = {"image": plain} | ({} if meta is None else {"meta": meta})
    return {name: one.detach().cpu().float().contiguous().numpy() for name, one in given.items()}


_CORE: list[Any] = []  # of OpenVINO; made when it is first asked for


def core_of_openvino() -> Any:
    """OpenVINO, which takes a moment to begin."""
    if not _CORE:
        _CORE.append(importlib.import_module("openvino").Core())
    return _CORE[0]
