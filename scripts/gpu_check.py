"""Check this library on one GPU: what gates cost, how fast it trains, distributed runs, resuming.

Each part runs in a process of its own for so long at most, and what it found until then is kept:
a part that fails, hangs or leaves the GPU in a bad state is told by name and takes no other along.
"""

import json
import math
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from benchmark import (
    NETWORKS,
    Row,
    inputs_of,
    interleaved,
    listed,
    markdown,
    measure,
    training,
    try_folder,
)
from ignite.engine import Events
from monai.transforms import RandSpatialCropd
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from metaseg_monai.bundle.run import resolve_bundle, running
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.files import write_json
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.sharing.run import train
from metaseg_monai.simulate import generate_synthetic_shapes
from metaseg_monai.tables import read_table
from metaseg_monai.training import ReplayDataset, end_processes, read_checkpoint, training_loader
from metaseg_monai.transforms import DropMetadatad, EncodeMetadatad, LoadCased, ScaleIntensityCased

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "synthetic_shapes_segmentation"
TRAINED = (("unet3", "none"), ("unet3", "se"), ("unet3", "sme"), ("dynunet-2d", "sme"))
WARM_UPS = 3
Finding = dict[str, Any]  # what, setting, result as told; further numbers for the JSON file
Made = TypeVar("Made")


@dataclass(frozen=True)
class Settings:
    """What is measured, and on what.

    Attributes:
        device: cpu, cuda or cuda:1.
        size: edge of the images in pixels.
        batch: images in a batch; halved where memory is short.
        workers: loading processes.
        tuned: cuDNN chooses kernels by trial; else as in a bundle's training, deterministic.
        quick: tiny networks and times: a dry run.
    """

    device: str
    size: int
    batch: int
    workers: int
    tuned: bool
    quick: bool

    @property
    def seconds(self) -> float:
        """How long one throughput is measured."""
        return 0.1 if self.quick else 5.0

    @property
    def on_gpu(self) -> bool:
        """Whether there is something to wait for."""
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Let all that was begun on the device end."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def network(self, name: str, variant: str, meta_features: int = 7) -> nn.Module:
        """Make a network on the device, channels last."""
        subject = replace(NETWORKS[name], meta_features=meta_features)
        if self.quick:
            subject = replace(subject, channels=8, levels=2)
        place: Any = {"device": torch.device(self.device), "memory_format": torch.channels_last}
        return subject.build(subject, variant).to(**place)


def machine(settings: Settings) -> Iterator[Finding]:
    """Tell the device and the versions."""
    versions = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    name = platform.processor() or platform.machine()
    if settings.on_gpu:
        found = torch.cuda.get_device_properties(settings.device)
        memory = f"{found.total_memory / 2**30:.0f} GiB, {found.multi_processor_count} SMs"
        name = f"{found.name}, {memory}, compute capability {found.major}.{found.minor}"
        versions += f", cuDNN {torch.backends.cudnn.version()}"
        if dist.is_nccl_available():
            versions += f", NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    yield {"what": "device", "setting": settings.device, "result": name}
    yield {"what": "versions", "setting": f"Python {platform.python_version()}", "result": versions}
    cudnn = torch.backends.cudnn
    told = f"benchmark {cudnn.benchmark}, deterministic {cudnn.deterministic}"
    told += f", TF32 of convolutions {cudnn.allow_tf32}, of products "
    told += str(torch.backends.cuda.matmul.allow_tf32)
    yield {"what": "cuDNN", "setting": "all parts but resume", "result": told}


def matmul(settings: Settings) -> Iterator[Finding]:
    """Measure the peak of matrix products in bfloat16."""
    for edge in (128,) if settings.quick else (4096, 8192, 16384):
        a, b = torch.rand(2, edge, edge, device=settings.device).bfloat16()
        best = min(_repeated(partial(torch.mm, a, b), settings, 0.3) for _ in range(3))
        teraflops = 2 * edge**3 / best / 1e12
        yield {
            "what": "matrix product",
            "setting": f"{edge} x {edge}, bfloat16",
            "result": f"{teraflops:.4g} TFLOPS",
            "teraflops": teraflops,
        }


def overhead(settings: Settings) -> Iterator[Finding]:
    """Measure what gates cost over the bare network, as `benchmark.py` does."""
    for name in ("unet3", "dynunet-2d", "segresnet-3d"):
        variants = ("se", "sme") if name == "unet3" else ("sme",)
        subject = replace(NETWORKS[name], variants=variants)
        if subject.spatial_dims == 2:
            subject = replace(subject, size=settings.size, batch=min(4, settings.batch))
        if settings.quick:
            subject = replace(subject, size=16, channels=16, levels=2, batch=2)

        def measured(batch: int, name: str = name, subject: Any = subject) -> list[Row]:
            sized = replace(subject, batch=batch)
            repetitions = 1 if settings.quick else 21
            return measure(name, sized, repetitions=repetitions, device=settings.device)[0]

        rows, _ = _fitting(subject.batch, measured)
        yield from map(asdict, rows)


def throughput(settings: Settings) -> Iterator[Finding]:
    """Measure images a second in training, in bfloat16, with reading TIFF files and without."""
    with tempfile.TemporaryDirectory() as folder:
        schema = MetadataSchema.load(BUNDLE / "configs" / "schema.json")
        dataset = _images(Path(folder), schema, settings)
        loader = partial(training_loader, dataset, seed=0, num_workers=settings.workers)
        yield _loading(loader(batch_size=settings.batch), settings)
        for name, variant in TRAINED:
            yield from _trained(name, variant, schema.width, loader, settings)


def _loading(loader: DataLoader[Any], settings: Settings) -> Finding:
    """Measure how fast images are read when nothing is done with them."""
    draw = _endless(loader)
    rate = settings.batch / _repeated(lambda: next(draw), settings, settings.seconds)
    edge = settings.size + settings.size // 8
    setting = f"{edge} x {edge} TIFF, crops of {settings.size}, {settings.workers} workers"
    return {
        "what": "loading alone",
        "setting": setting,
        "result": f"{rate:.4g} images/s",
        "images_per_second": rate,
    }


def _trained(
    name: str,
    variant: str,
    width: int,
    loader: Callable[..., DataLoader[Any]],
    settings: Settings,
) -> Iterator[Finding]:
    """Measure one network's training, first on one batch that stays on the device."""
    device = settings.device

    def made(batch: int) -> tuple[Callable[..., None], nn.Module, float, float]:
        operations = _operations(settings.network(name, "none"), batch, settings)
        if settings.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        network = settings.network(name, variant, width)
        step = training(network, "bfloat16")
        shape = (batch, 1, settings.size, settings.size)
        image = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
        label = torch.randint(0, 2, shape, device=device)
        inputs = inputs_of(network, image, torch.eye(width, device=device)[_turns(batch, width)])
        seconds = _repeated(lambda: step(inputs, label), settings, settings.seconds)
        return step, network, seconds, operations / seconds / 1e12

    (step, network, seconds, teraflops), batch = _fitting(settings.batch, made)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if settings.on_gpu else None
    setting = f"{batch} x 1 x {settings.size} x {settings.size}, bfloat16"
    told = f"{batch / seconds:.4g} images/s, {teraflops:.4g} TFLOPS of the bare network"
    yield {
        "what": f"training {name} {variant}",
        "setting": f"{setting}, images on the device",
        "result": told + (f", {memory:.1f} GiB" if memory is not None else ""),
        "network": name,
        "variant": variant,
        "loading": False,
        "images_per_second": batch / seconds,
        "teraflops": teraflops,
        "memory_gib": memory,
    }
    draw = _endless(loader(batch_size=batch))

    def loaded() -> None:
        read = next(draw)
        image, label, meta = (
            read[key].to(device, non_blocking=True) for key in ("image", "label", "meta")
        )
        step(inputs_of(network, image, meta), label)

    seconds = _repeated(loaded, settings, settings.seconds)
    yield {
        "what": f"training {name} {variant}",
        "setting": f"{setting}, read by {settings.workers} workers",
        "result": f"{batch / seconds:.4g} images/s",
        "network": name,
        "variant": variant,
        "loading": True,
        "images_per_second": batch / seconds,
    }


def _operations(network: nn.Module, batch: int, settings: Settings) -> int:
    """Count the operations of a training step; the counter takes no gates, which add few."""
    image = torch.rand(batch, 1, settings.size, settings.size, device=settings.device)
    with FlopCounterMode(display=False) as counter:
        training(network, "bfloat16")((image,), (image > 0.5).long())
    return counter.get_total_flops()


def processes(settings: Settings) -> Iterator[Finding]:
    """Reduce over a group of one process, and train in it."""
    backend = "nccl" if settings.on_gpu else "gloo"
    device = torch.device(settings.device)
    if settings.on_gpu:
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        limit = timedelta(seconds=30)
        dist.init_process_group(backend, meeting, rank=0, world_size=1, timeout=limit)
        try:
            values = torch.arange(1 << (10 if settings.quick else 24), device=device).float()
            reduced = values.clone()
            dist.all_reduce(reduced)
            if not torch.equal(reduced, values):
                raise RuntimeError(f"all_reduce of {backend} changed the values of its one process")
            seconds = _repeated(lambda: dist.all_reduce(reduced), settings, settings.seconds / 5)
            yield {
                "what": f"all_reduce, {backend}",
                "setting": f"one process, {values.numel() * 4 / 2**20:.3g} MiB",
                "result": f"values kept, {1000 * seconds:.3g} ms",
                "milliseconds": 1000 * seconds,
            }
            yield _distributed(backend, device, settings)
        finally:
            end_processes()


def _distributed(backend: str, device: torch.device, settings: Settings) -> Finding:
    """Time a step of Unet3 in DistributedDataParallel over the same without, in turns."""
    size, batch = settings.size, min(4, settings.batch)
    image = torch.rand(batch, 1, size, size, device=device)
    label = torch.randint(0, 2, image.shape, device=device)
    meta = torch.eye(7, device=device)[_turns(batch, 7)]
    plain, inner = (settings.network("unet3", "sme") for _ in range(2))
    wrapped = DistributedDataParallel(inner, [device] if settings.on_gpu else None)
    runs = {
        "none": partial(training(plain, "bfloat16"), (image, meta), label),
        "wrapped": partial(training(wrapped, "bfloat16"), (image, meta), label),
    }
    seconds = interleaved(runs, 1 if settings.quick else 15, settings.device)
    pairs = zip(seconds["wrapped"], seconds["none"], strict=True)
    ratio = torch.tensor([own / bare for own, bare in pairs]).median().item()
    grads = [weight.grad for weight in inner.parameters() if weight.grad is not None]
    if not grads or not all(bool(grad.isfinite().all()) for grad in grads):
        raise RuntimeError("a step of Unet3 in DistributedDataParallel gave no finite gradients")
    return {
        "what": f"DistributedDataParallel, {backend}",
        "setting": f"unet3 sme, one process, {batch} x 1 x {size} x {size}, bfloat16",
        "result": f"finite gradients, {ratio:.3f} of the time without",
        "ratio": ratio,
    }


def resume(settings: Settings) -> Iterator[Finding]:
    """Train a tiny bundle for two epochs, twice at once and once resumed after the first epoch."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before this process uses the GPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        folder = Path(name)
        root = folder / "bundle"
        shutil.copytree(BUNDLE, root, ignore=shutil.ignore_patterns("data", "models", "eval"))
        generate_synthetic_shapes(folder / "shapes", train=16, val=8, test=0, size=32)
        given: dict[str, Any] = {
            "dataset_dir": str(folder / "shapes"),
            "device": settings.device,
            "epochs": 2,
            "roi_size": [32, 32],
            "train#augmentation#0#spatial_size": [36, 36],
        }
        states = {}
        for run in ("whole", "again", "resumed"):
            output = folder / run
            if run == "resumed":
                _first_epoch(root, {**given, "output_dir": str(output)})
            train(root, output, resume=run == "resumed", trust=True, **given)
            kept = read_checkpoint(output / "checkpoint.pt")["objects"]
            states[run] = dict(_tensors({key: kept[key] for key in ("network", "optimizer")}))
        own = [str(one.message) for one in told]
    ops = sorted(
        {one.split(" does not have a deterministic")[0] for one in own if "determin" in one}
    )
    note = f"; without deterministic form: {', '.join(ops)}" if ops else ""
    for run, what in (("again", "a training repeated"), ("resumed", "a training resumed")):
        apart = _apart(states["whole"], states[run])
        yield {
            "what": what,
            "setting": f"shapes, 2 epochs, bfloat16, on {settings.device}",
            "result": ("bit-equal" if apart == 0 else f"weights differ by {apart:.3g}") + note,
            "largest_difference": apart,
            "not_deterministic": ops,
        }


def _first_epoch(root: Path, given: Mapping[str, Any]) -> None:
    """Begin a run of two epochs and leave it after the first."""
    with running(root, ["train.json"], given, trust=True, run=False) as workflow:
        trainer = workflow.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate())
        trainer.run()


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state.detach().cpu()
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}")


def _apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the largest difference of two states, 0 only where all bits are the same."""
    if one.keys() != other.keys():
        raise RuntimeError(f"other tensors: {sorted(one.keys() ^ other.keys())[:3]}")
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    return max(
        ((one[n].double() - other[n].double()).abs().max().item() for n in differing), default=0
    )


def _images(folder: Path, schema: MetadataSchema, settings: Settings) -> ReplayDataset:
    """Write TIFF images and return them as a bundle's training reads them, each time anew."""
    count, edge = (8, 64), settings.size + settings.size // 8
    generate_synthetic_shapes(
        folder / "shapes", train=count[not settings.quick], val=0, test=0, size=edge
    )
    items = read_table(folder / "shapes", schema=schema).items("train")
    crop = RandSpatialCropd(
        ["image", "label"], roi_size=(settings.size, settings.size), random_size=False
    )
    return ReplayDataset(
        items * math.ceil((64 if settings.quick else 8192) / len(items)),
        transform=[
            LoadCased(classes=2, in_channels=1),
            ScaleIntensityCased(intensity_range=(0, 255)),
            EncodeMetadatad(schema),
        ],
        augment=[crop, DropMetadatad(schema, probability=0.1)],
        cache=False,
    )


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _turns(batch: int, width: int) -> Tensor:
    """Number metadata so that each image of a batch has another."""
    return torch.arange(batch) % width


def _repeated(run: Callable[[], Any], settings: Settings, seconds: float) -> float:
    """Return the seconds of one run, of as many as fit in so many seconds, at least two."""
    for _ in range(WARM_UPS):
        run()
    settings.wait()
    start, done = time.perf_counter(), 0
    while done < 2 or time.perf_counter() - start < (0.1 if settings.quick else seconds):
        run()
        done += 1
        if done % 8 == 0:
            settings.wait()  # the host must not run far ahead
    settings.wait()
    return (time.perf_counter() - start) / done


def _fitting(batch: int, make: Callable[[int], Made]) -> tuple[Made, int]:
    """Make something of the largest batch, halved as often as needed, that fits in memory."""
    while True:
        try:
            return make(batch), batch
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                raise
        torch.cuda.empty_cache()
        batch //= 2


Part = Callable[[Settings], Iterator[Finding]]
PARTS: dict[str, tuple[Part, float]] = {  # and for how many seconds at most
    "machine": (machine, 30),
    "matmul": (matmul, 40),
    "overhead": (overhead, 120),
    "throughput": (throughput, 150),
    "processes": (processes, 50),
    "resume": (resume, 85),
}


def gpu_check(
    device: str = "cuda",
    size: int = 512,
    batch: int = 8,
    workers: int | None = None,
    parts: Sequence[str] = tuple(PARTS),
    tuned: bool = False,
    quick: bool = False,
    output: str = "runs/gpu_check",
) -> None:
    """Measure on one GPU in at most 8 minutes; print Markdown tables for docs/results.md.

    Example:
        python scripts/gpu_check.py --output runs/gpu_check
        python scripts/gpu_check.py --device cpu --size 64 --quick True

    Args:
        device: cuda, cuda:1 ...; cpu for a dry run, with gloo in the place of nccl.
        size: edge of the images in pixels.
        batch: images in a batch; halved where memory is short, and told.
        workers: loading processes; by default as many as there are processors, at most 8.
        parts: machine, matmul, overhead, throughput, processes, resume.
        tuned: let cuDNN choose its kernels by trial; by default it is deterministic, as in a
            bundle's training.
        quick: tiny networks and short times, whose figures mean nothing.
        output: folder for gpu_check.md and gpu_check.json.
    """
    for name, value in {"size": size, "batch": batch}.items():
        if value < 1:
            raise ConfigError(f"{name} must be 1 or more, got {value}")
    if not (device == "cpu" or device.startswith("cuda")):
        raise ConfigError(f"device must be cpu or cuda, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device {device!r} was asked for, but PyTorch sees no GPU: for a dry run take "
            "--device cpu --size 64 --quick True"
        )
    resolve_bundle(BUNDLE)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    loading = min(8, usable) if workers is None else workers
    settings = Settings(device, size, batch, loading, tuned, quick)
    folder = Path(output)
    try_folder(folder)
    found = {}
    for name in listed(parts, tuple(PARTS)):
        part, seconds = PARTS[name]
        print(f"{name}: at most {seconds:.0f} s ...", file=sys.stderr, flush=True)
        found[name] = run_part(part, seconds, settings)
        error = found[name]["error"]
        told = f"failed: {error}" if error else "done"
        print(f"{name}: {told} ({found[name]['seconds']:.0f} s)", file=sys.stderr, flush=True)
    text = report(settings, found)
    (folder / "gpu_check.md").write_text(text, encoding="utf-8")
    write_json(folder / "gpu_check.json", {"settings": asdict(settings), "parts": found})
    print(f"{text}\nWrote {folder / 'gpu_check.md'} and {folder / 'gpu_check.json'}")
    if failed := [name for name in found if found[name]["error"]]:
        sys.exit(f"gpu_check: failed: {', '.join(failed)}")


def run_part(part: Part, seconds: float, settings: Settings) -> dict[str, Any]:
    """Run a part in a process of its own, which is ended when its time is over.

    Returns:
        `findings`, those of a part that failed, too; `error`, or None; `seconds`.
    """
    # forking is quick, but a process that has touched CUDA cannot be forked
    method = "spawn" if settings.on_gpu or "fork" not in _methods() else "fork"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        lines = Path(folder) / "findings.jsonl"
        lines.touch()
        context: Any = multiprocessing.get_context(method)
        child = context.Process(target=_work, args=(part, settings, lines))
        child.start()
        child.join(seconds)
        error = None
        if child.is_alive():
            error = f"not ready after {seconds:.0f} s"
            child.kill()
            child.join()
        written = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    findings = [one for one in written if "failure" not in one]
    if failures := [one["failure"] for one in written if "failure" in one]:
        error = failures[0]
    elif error is None and child.exitcode != 0:
        error = f"the process ended with {child.exitcode}"
    return {"findings": findings, "error": error, "seconds": time.perf_counter() - start}


def _methods() -> list[str]:
    return multiprocessing.get_all_start_methods()


def _work(part: Part, settings: Settings, lines: Path) -> None:
    """Write a part's findings, each as soon as it is there, or why there are no more."""
    tempfile.tempdir = str(lines.parent)  # what a process leaves that is killed goes with it
    torch.backends.cudnn.benchmark = settings.tuned
    torch.backends.cudnn.deterministic = not settings.tuned
    with lines.open("a", encoding="utf-8") as file:
        try:
            for finding in part(settings):
                file.write(json.dumps(finding) + "\n")
                file.flush()
        except Exception as error:  # whatever it is, the other parts go on
            first = (str(error).strip().splitlines() or [""])[0]
            file.write(json.dumps({"failure": f"{type(error).__name__}: {first}"}) + "\n")


def report(settings: Settings, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return Markdown: findings, what gates cost, and which parts failed."""
    lines = ["| what | setting | result |", "| --- | --- | --- |"]
    findings = {name: part["findings"] for name, part in found.items()}
    peak = max((one["teraflops"] for one in findings.get("matmul", ())), default=None)
    for name, those in findings.items():
        for one in those if name != "overhead" else ():
            share = ""
            if peak and "teraflops" in one and name == "throughput":
                share = f" ({100 * one['teraflops'] / peak:.0f} % of the matrix product)"
            lines.append(f"| {one['what']} | {one['setting']} | {one['result']}{share} |")
    if rows := findings.get("overhead"):
        lines += ["", "Time over the bare network, median of pairs (quartiles):", ""]
        lines.append(markdown([Row(**one) for one in rows]))
    failed = [f"- {name} failed: {part['error']}" for name, part in found.items() if part["error"]]
    if failed:
        lines += ["", *failed]
    if settings.quick:
        lines += ["", "A dry run (--quick): these times mean nothing."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(gpu_check)
