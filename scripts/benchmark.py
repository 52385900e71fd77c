"""Measure what gates cost: time of Unet3 with a gate over time of Unet3 without, in paired runs.

Each repetition times a step without gates and a step of every variant one after the other, in
turning order, and gives one ratio per variant; the table shows the median ratio and its quartiles,
which a noisy machine moves far less than the times.
"""

import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import fire
import torch
from torch import Tensor
from tqdm import tqdm

from metaseg_monai.errors import ConfigError, MetasegError
from metaseg_monai.losses import PixelCrossEntropy
from metaseg_monai.networks import METADATA_VARIANTS, VARIANTS, ChannelGate, Unet3

DTYPES = ("float32", "bfloat16")
STEPS = ("training", "inference")
WARM_UPS = 2


@dataclass(frozen=True)
class Row:
    """The cost of one variant in one setting; ratios are over the network without gates."""

    device: str
    dtype: str
    layout: str
    image: str
    step: str
    variant: str
    ratio: float
    first_quartile: float
    third_quartile: float
    milliseconds: float
    milliseconds_without: float
    repetitions: int


def benchmark(
    variants: Sequence[str] = ("se", "me", "sme", "film"),
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    steps: Sequence[str] = ("training", "inference"),
    channels_last: bool = True,
    size: int = 256,
    batch: int = 1,
    channels: int = 64,
    levels: int = 5,
    spatial_dims: int = 2,
    meta_features: int = 7,
    reduction: float = 4,
    fused: bool = True,
    repetitions: int = 9,
    device: str = "cpu",
    threads: int | None = None,
    output: str | None = None,
) -> None:
    """Print a Markdown table of paired time ratios, variant over none.

    Example:
        python scripts/benchmark.py --variants se,sme --dtypes float32, --repetitions 21

    Args:
        variants: gates to compare with none.
        dtypes: float32 and bfloat16 (by autocast, weights stay float32).
        steps: training (forward, loss, backward, Adam) and inference.
        channels_last: memory layout of images and weights; --nochannels_last for the other.
        size: edge of the image in pixels.
        batch: images in a batch.
        channels: filters of every convolution.
        levels: levels of the network.
        spatial_dims: 2 or 3.
        meta_features: width of the metadata.
        reduction: r of the gates' hidden width.
        fused: gates as one autograd node; --nofused for plain operations.
        repetitions: paired runs of each setting, after two that are not counted.
        device: cpu, or cuda where there is one.
        threads: CPU threads; by default PyTorch's own choice.
        output: a CSV file to write the table to.
    """
    names = ["none", *_listed(variants, VARIANTS[1:])]
    settings = [(d, step) for d in _listed(dtypes, DTYPES) for step in _listed(steps, STEPS)]
    if repetitions < 1:
        raise ConfigError(f"repetitions must be 1 or more, got {repetitions}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but PyTorch sees no GPU: use cpu")
    if threads is not None:
        torch.set_num_threads(threads)

    torch.manual_seed(0)
    memory_format = torch.contiguous_format
    if channels_last:
        memory_format = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    shape = (batch, 1) + (size,) * spatial_dims
    image = torch.rand(shape, device=device).contiguous(memory_format=memory_format)
    label = torch.randint(0, 2, shape, device=device)
    meta = torch.rand(batch, meta_features, device=device)
    networks = {
        name: Unet3(
            variant=name,
            meta_features=meta_features if name in METADATA_VARIANTS else 0,
            channels=channels,
            levels=levels,
            reduction=reduction,
            spatial_dims=spatial_dims,
        ).to(device=torch.device(device), memory_format=memory_format)  # type: ignore[call-overload]
        for name in names
    }
    for network in networks.values():
        for gate in filter(lambda module: isinstance(module, ChannelGate), network.modules()):
            gate.fused = fused
    rows = []
    total = len(settings) * (repetitions + WARM_UPS) * len(names)
    with tqdm(total=total, unit="step") as progress:
        for dtype, step in settings:
            make = _training if step == "training" else _inference
            runs = {
                name: make(network, image, meta if network.meta_features else None, label, dtype)
                for name, network in networks.items()
            }
            seconds = _interleaved(runs, repetitions, device, progress)
            layout = "channels_last" if channels_last else "contiguous"
            settings_of_row = (device, dtype, layout, "x".join(map(str, shape)), step)
            rows += [_row(settings_of_row, name, seconds) for name in names[1:]]
    print(_markdown(rows))
    print(f"\nPyTorch {torch.__version__}, {torch.get_num_threads()} threads, fused={fused}")
    if output is not None:
        _write_csv(rows, Path(output))
        print(f"Wrote {output}")


def _listed(chosen: Sequence[str] | str, allowed: Sequence[str]) -> list[str]:
    """Return the chosen names as a list; fire hands over a single name as a string."""
    names = chosen.split(",") if isinstance(chosen, str) else [str(name) for name in chosen]
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        raise ConfigError(f"unknown {', '.join(unknown)}: choose of {', '.join(allowed)}")
    return names


def _training(
    network: Unet3, image: Tensor, meta: Tensor | None, label: Tensor, dtype: str
) -> Callable[[], None]:
    """Return one step of training: forward, loss, backward, Adam."""
    optimizer = torch.optim.Adam(network.parameters())
    loss = PixelCrossEntropy()
    half = dtype == "bfloat16"

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            pred = network(image, meta)
        loss(pred, label).backward()
        optimizer.step()

    return step


def _inference(
    network: Unet3, image: Tensor, meta: Tensor | None, label: Tensor, dtype: str
) -> Callable[[], None]:
    """Return one prediction."""
    half = dtype == "bfloat16"

    def step() -> None:
        network.eval()
        autocast = torch.autocast(image.device.type, torch.bfloat16, enabled=half)
        with torch.inference_mode(), autocast:
            network(image, meta)

    return step


def _interleaved(
    runs: dict[str, Callable[[], None]], repetitions: int, device: str, progress: tqdm
) -> dict[str, list[float]]:
    """Run all once a repetition, each time from another start; return the seconds of each."""
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(-WARM_UPS, repetitions):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            elapsed = _timed(runs[name], device)
            if repetition >= 0:
                seconds[name].append(elapsed)
            progress.update()
    return seconds


def _timed(run: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _row(
    settings: tuple[str, str, str, str, str], variant: str, seconds: dict[str, list[float]]
) -> Row:
    pairs = zip(seconds[variant], seconds["none"], strict=True)
    ratios = [gated / without for gated, without in pairs]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Row(
        *settings,
        variant=variant,
        ratio=statistics.median(ratios),
        first_quartile=quartiles[0],
        third_quartile=quartiles[2],
        milliseconds=1000 * statistics.median(seconds[variant]),
        milliseconds_without=1000 * statistics.median(seconds["none"]),
        repetitions=len(ratios),
    )


def _markdown(rows: Sequence[Row]) -> str:
    lines = [
        "| device | dtype | layout | image | step | variant | ratio | quartiles | ms | ms none |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        where = f"{row.device} | {row.dtype} | {row.layout} | {row.image} | {row.step}"
        spread = f"{row.first_quartile:.3f} to {row.third_quartile:.3f}"
        times = f"{row.milliseconds:.1f} | {row.milliseconds_without:.1f}"
        lines.append(f"| {where} | {row.variant} | {row.ratio:.3f} | {spread} | {times} |")
    return "\n".join(lines)


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    try:
        fire.Fire(benchmark)
    except MetasegError as error:
        sys.exit(f"benchmark: {error}")
