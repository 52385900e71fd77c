"""Measure what gates and mechanisms cost: network x variant, over the bare network, in paired runs.

Each repetition times a step of the bare network and one of every variant one after the other, in
turning order, and gives one ratio per variant; the table shows the median ratio and its quartiles,
which a noisy machine moves far less than the times.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet
from torch import Tensor, nn
from tqdm import tqdm

from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.files import writable
from metaseg_monai.losses import PixelCrossEntropy
from metaseg_monai.networks import (
    MECHANISMS,
    METADATA_VARIANTS,
    TABLE,
    ChannelGate,
    DynamicUnet3,
    Mechanism,
    MultiHeadUnet3,
    PPUnet,
    Unet3,
    condition,
)
from metaseg_monai.networks.gates import Start
from metaseg_monai.networks.places import GROUPS
from metaseg_monai.networks.unet3 import gate_places
from metaseg_monai.rows import write_table

DTYPES = ("float32", "bfloat16")
STEPS = ("training", "inference")
WARM_UPS = 2
COST = {"training": 1.0, "inference": 0.3, "float32": 1.0, "bfloat16": 0.5}  # for the progress bar
OF_UNET3 = {  # variants that are networks of their own; here beside Unet3
    "dynamic": "DynamicUnet3 with its frozen generator",
    "dynamic-joint": "DynamicUnet3 whose generator learns with it",
    "multi-head": "MultiHeadUnet3 with a head for each entry of the metadata",
}


@dataclass(frozen=True)
class Subject:
    """A network to measure, and on what.

    Attributes:
        build: makes it with a variant, bare with "none".
        seconds: of a training step, roughly, on two cores; for the progress bar alone.
        variants: what is measured over the bare network.
        at: where gates stand, as of `condition`; those of Unet3 and PPUnet by the same words.
        start: of the gates.
        spatial_dims: 2 or 3.
        batch: images in a batch.
        size: edge of the image in pixels.
        channels: filters of the first level, in Unet3 and PPUnet of all.
        levels: of Unet3 and PPUnet.
        meta_features: width of the metadata.
        reduction: r of the gates' hidden width.
        channels_last: memory layout of images and weights in 2D.
        fused: gates as one autograd node.
    """

    build: Callable[["Subject", str], nn.Module]
    seconds: float
    variants: Sequence[str] = ("se", "me", "sme", "film")
    at: str | Sequence[str] = "encoder"
    start: Start = "neutral"
    spatial_dims: int = 2
    batch: int = 4
    size: int = 256
    channels: int = 16
    levels: int = 5
    meta_features: int = 7
    reduction: float = 4
    channels_last: bool = True
    fused: bool = True

    def width(self, variant: str) -> int | None:
        """The width of the metadata that a variant reads, or None."""
        return self.meta_features if variant in METADATA_VARIANTS else None

    def places(self, variant: str) -> Sequence[str] | None:
        """Where a variant stands among the own places of Unet3 and PPUnet; None: its own choice."""
        mechanism = MECHANISMS.get(variant)
        if variant == "none" or (mechanism is not None and mechanism.behind == "image"):
            return None
        names = gate_places(self.levels)
        if not isinstance(self.at, str):
            return self.at
        middle = self.levels + 1
        return {"all": None, "encoder": names[:middle], "decoder": names[middle:]}[self.at]


@dataclass(frozen=True)
class Row:
    """The cost of one variant in one setting; ratios are over the bare network.

    Attributes:
        at: where gates stand, and how many they are.
        parameters: that learn.
        frozen: values beside them that do not.
        memory_mib: that a training step holds at most between forward and backward pass: weights,
            their gradients, Adam's moments, and all tensors that are kept for the backward pass.
        memory_mib_bare: likewise of the bare network.
    """

    network: str
    variant: str
    at: str
    parameters_bare: int
    parameters: int
    added_percent: float
    frozen: int
    device: str
    threads: int
    dtype: str
    layout: str
    image: str
    step: str
    ratio: float
    first_quartile: float
    third_quartile: float
    milliseconds: float
    milliseconds_bare: float
    memory_mib: float
    memory_mib_bare: float
    repetitions: int


def _unet3(subject: Subject, variant: str) -> nn.Module:
    sizes: dict[str, Any] = {
        "channels": subject.channels,
        "levels": subject.levels,
        "spatial_dims": subject.spatial_dims,
    }
    if variant == "multi-head":
        return MultiHeadUnet3(subject.meta_features, **sizes)
    if variant in OF_UNET3:
        joint = variant == "dynamic-joint"
        return DynamicUnet3(meta_features=subject.meta_features, joint=joint, **sizes)
    return _with_own_gates(Unet3, subject, variant)


def _ppunet(subject: Subject, variant: str) -> nn.Module:
    return _with_own_gates(PPUnet, subject, variant)


def _with_own_gates(made: type[Unet3 | PPUnet], subject: Subject, variant: str) -> nn.Module:
    return made(
        variant=variant,
        channels=subject.channels,
        levels=subject.levels,
        reduction=subject.reduction,
        places=subject.places(variant),
        spatial_dims=subject.spatial_dims,
        start=subject.start,
        meta_features=subject.width(variant),
    )


def _segresnet(subject: Subject, variant: str) -> nn.Module:
    bare = SegResNet(
        spatial_dims=subject.spatial_dims,
        init_filters=subject.channels,
        in_channels=1,
        out_channels=2,
    )
    return _conditioned(bare, subject, variant)


def _dynunet(subject: Subject, variant: str) -> nn.Module:
    bare = DynUNet(  # as in bundles/_shared/dynunet.json
        spatial_dims=subject.spatial_dims,
        in_channels=1,
        out_channels=2,
        kernel_size=[3, 3, 3, 3],
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2, 2, 2],
        filters=[subject.channels * factor for factor in (1, 2, 4, 8)],
    )
    return _conditioned(bare, subject, variant)


def _basicunet(subject: Subject, variant: str) -> nn.Module:
    bare = BasicUNet(
        spatial_dims=subject.spatial_dims,
        in_channels=1,
        out_channels=2,
        features=[subject.channels * factor for factor in (1, 1, 2, 4, 8, 1)],
    )
    return _conditioned(bare, subject, variant)


def _conditioned(bare: nn.Module, subject: Subject, variant: str) -> nn.Module:
    if variant == "none":
        return bare
    return condition(
        bare,
        variant=variant,
        at=subject.at,
        reduction=subject.reduction,
        start=subject.start,
        meta_features=subject.width(variant),
    )


ALL_WAYS = ("se", "me", "sme", "film", "constant-channel", "adaptive-norm", "low-rank", "hyper")
OWN: dict[str, Any] = {"at": "all", "start": "paper", "batch": 1, "channels": 64}
NETWORKS = {
    "unet3": Subject(_unet3, 0.85, (*ALL_WAYS, "dynamic", "dynamic-joint"), **OWN),
    "ppunet": Subject(_ppunet, 1.2, **OWN),
    "segresnet-3d": Subject(_segresnet, 1.0, spatial_dims=3, batch=1, size=64),
    "segresnet-2d": Subject(_segresnet, 0.7),
    "dynunet-2d": Subject(_dynunet, 0.8),
    "basicunet-2d": Subject(_basicunet, 1.0, batch=2, channels=32),
    "unet3-3d": Subject(_unet3, 9.0, **{**OWN, "spatial_dims": 3, "size": 64}),
    "dynunet-3d": Subject(_dynunet, 1.0, spatial_dims=3, batch=1, size=64),
}
DEFAULT = ("unet3", "ppunet", "segresnet-3d", "segresnet-2d", "dynunet-2d", "basicunet-2d")


def benchmark(
    networks: Sequence[str] = DEFAULT,
    variants: Sequence[str] | None = None,
    at: str | Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    steps: Sequence[str] = STEPS,
    channels_last: bool = True,
    size: int | None = None,
    batch: int | None = None,
    channels: int | None = None,
    levels: int | None = None,
    meta_features: int | None = None,
    reduction: float | None = None,
    start: str | None = None,
    fused: bool = True,
    repetitions: int = 7,
    device: str = "cpu",
    threads: int | None = None,
    output: str | None = None,
) -> None:
    """Print a Markdown table, network x variant: parameters, memory and time over the bare network.

    With its defaults it takes about 9 minutes on two quiet cores.

    Example:
        python scripts/benchmark.py --output cost.csv
        python scripts/benchmark.py --networks dynunet-2d --variants sme, --dtypes bfloat16,
            --at all --repetitions 21

    Args:
        networks: unet3, ppunet, segresnet-3d, segresnet-2d, dynunet-2d, basicunet-2d, unet3-3d,
            dynunet-3d. All but Unet3 and PPUnet, which have gates of their own, are conditioned.
        variants: gates and mechanisms to compare with the bare network, all of
            `metaseg_monai.networks.TABLE`; of Unet3 dynamic (its generator frozen), dynamic-joint
            (it learns) and multi-head, too. By default se, me, sme and film, and of Unet3
            constant-channel, adaptive-norm, low-rank, hyper, dynamic and dynamic-joint. What does
            not go with a network is left out of its rows, and told.
        at: encoder, decoder, all, or names of places; by default encoder, and all in Unet3 (11
            places) and PPUnet.
        dtypes: float32 and bfloat16 (by autocast, weights stay float32).
        steps: training (forward, loss, backward, Adam) and inference.
        channels_last: memory layout of images and weights in 2D; --nochannels_last for the other.
        size: edge of the image in pixels; by default 256, in 3D 64.
        batch: images in a batch; by default 4, of BasicUNet 2, of Unet3, PPUnet and in 3D 1.
        channels: filters of the first level (of all in Unet3 and PPUnet); by default 16, of
            BasicUNet 32, of Unet3 and PPUnet 64.
        levels: levels of Unet3 and PPUnet, by default 5.
        meta_features: width of the metadata, by default 7; each image has one entry of 1.
        reduction: r of the gates' hidden width, by default 4.
        start: neutral or paper; by default paper in Unet3 and PPUnet, else neutral.
        fused: gates as one autograd node; --nofused for plain operations.
        repetitions: paired runs of each setting, after two that are not counted.
        device: cpu, or cuda where there is one.
        threads: CPU threads; by default PyTorch's own choice. The table tells it.
        output: a CSV file to write all rows to.
    """
    known = ("none", *TABLE, *OF_UNET3)
    changes: dict[str, Any] = {
        "variants": None if variants is None else listed(variants, known[1:]),
        "at": at.split(",") if isinstance(at, str) and at not in GROUPS else at,
        "channels_last": channels_last,
        "size": size,
        "batch": batch,
        "channels": channels,
        "levels": levels,
        "meta_features": meta_features,
        "reduction": reduction,
        "start": start,
        "fused": fused,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    subjects = {name: replace(NETWORKS[name], **given) for name in listed(networks, [*NETWORKS])}
    chosen = listed(dtypes, DTYPES), listed(steps, STEPS)
    if start not in (None, "neutral", "paper"):
        raise ConfigError(f"start must be neutral or paper, got {start!r}")
    if repetitions < 1:
        raise ConfigError(f"repetitions must be 1 or more, got {repetitions}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but PyTorch sees no GPU: use cpu")
    if threads is not None:
        torch.set_num_threads(threads)
    if output is not None:
        if Path(output).is_dir():
            raise ConfigError(f"{output} is a folder: name a CSV file as --output")
        try_folder(Path(output).parent)

    rows: list[Row] = []
    left_out: list[str] = []
    total = sum(_total(subject, *chosen, repetitions) for subject in subjects.values())
    bar = "{desc}{percentage:3.0f}% |{bar}| {elapsed}, {remaining} to go"
    with tqdm(total=total, bar_format=bar, smoothing=0) as progress:
        for name, subject in subjects.items():
            progress.set_description(name)
            measured, refused = measure(name, subject, *chosen, repetitions, device, progress)
            rows += measured
            left_out += refused
    if not rows:
        raise ConfigError(f"nothing to measure; {'; '.join(left_out)}")
    print(markdown(rows))
    print(f"\nPyTorch {torch.__version__}, {repetitions} repetitions, fused={fused}")
    for what in left_out:
        print(f"Left out: {what}")
    if output is not None:
        write_csv(rows, Path(output))
        print(f"Wrote {output}")


def listed(chosen: Sequence[str] | str, allowed: Sequence[str]) -> list[str]:
    """Return the chosen names as a list; fire hands over a single name as a string.

    Raises:
        ConfigError: one is not allowed, or there is none.
    """
    names = chosen.split(",") if isinstance(chosen, str) else [str(name) for name in chosen]
    names = [name.strip() for name in names if name.strip()]
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        raise ConfigError(f"unknown {', '.join(unknown)}: choose of {', '.join(allowed)}")
    return names


def _cost(subject: Subject, dtype: str, step: str) -> int:
    """Guess the milliseconds of a step, for the progress bar."""
    return round(1000 * subject.seconds * COST[dtype] * COST[step])


def _total(subject: Subject, dtypes: Sequence[str], steps: Sequence[str], repetitions: int) -> int:
    """Guess the milliseconds that a subject takes, for the progress bar."""
    of_one = sum(_cost(subject, dtype, step) for dtype in dtypes for step in steps)
    return of_one * (repetitions + WARM_UPS) * (len(subject.variants) + 1)


def measure(
    name: str,
    subject: Subject,
    dtypes: Sequence[str] = DTYPES,
    steps: Sequence[str] = STEPS,
    repetitions: int = 7,
    device: str = "cpu",
    progress: tqdm | None = None,
) -> tuple[list[Row], list[str]]:
    """Measure one network with its variants.

    Returns:
        A row for each dtype, step and variant, and what was left out, with the reason.

    Raises:
        ConfigError: the network cannot be made at all, or does not run on images of this size.
    """
    is_last = subject.channels_last and subject.spatial_dims == 2
    memory_format = torch.channels_last if is_last else torch.contiguous_format
    torch.manual_seed(0)
    shape = (subject.batch, 1) + (subject.size,) * subject.spatial_dims
    image = torch.rand(shape, device=device).contiguous(memory_format=memory_format)
    label = torch.randint(0, 2, shape, device=device)
    rows_of_meta = torch.arange(subject.batch) % subject.meta_features
    meta = torch.eye(subject.meta_features, device=device)[rows_of_meta]

    built: dict[str, nn.Module] = {}
    left_out = []
    for variant in ("none", *subject.variants):
        try:
            network = subject.build(subject, variant)
        except ConfigError as error:
            if variant == "none":
                raise
            left_out.append(f"{name}, {variant}: {error}")
            continue
        for gate in filter(lambda module: isinstance(module, ChannelGate), network.modules()):
            setattr(gate, "fused", subject.fused)  # noqa: B010 a Module's attributes have no type
        place: Any = {"device": torch.device(device), "memory_format": memory_format}
        built[variant] = network.to(**place)
    if progress is not None:
        left = replace(subject, variants=[*built][1:])
        whole, rest = (_total(one, dtypes, steps, repetitions) for one in (subject, left))
        progress.update(whole - rest)
    if len(built) == 1:
        return [], left_out

    rows = []
    for dtype in dtypes:
        memory: dict[str, float] = {}
        for step in steps:
            make = training if step == "training" else inference
            runs = {
                variant: partial(make(network, dtype), inputs_of(network, image, meta), label)
                for variant, network in built.items()
            }

            def done(cost: int = _cost(subject, dtype, step)) -> None:
                if progress is not None:
                    progress.update(cost)

            try:
                if not memory:
                    for variant, network in built.items():
                        memory[variant] = held(network, inputs_of(network, image, meta), dtype)
                seconds = interleaved(runs, repetitions, device, done)
            except ValueError as error:  # such as a normalisation of a single pixel
                sizes = "x".join(map(str, shape))
                raise ConfigError(
                    f"{name} does not run on {sizes}: {error}; take another --size or --batch"
                ) from error
            setting: dict[str, Any] = {
                "device": device,
                "threads": torch.get_num_threads(),
                "dtype": dtype,
                "layout": "channels_last" if is_last else "contiguous",
                "image": "x".join(map(str, shape)),
                "step": step,
                "repetitions": repetitions,
            }
            for variant in [*built][1:]:
                sizes_of = _sizes(built[variant], built["none"])
                times = _times(seconds[variant], seconds["none"])
                mib: dict[str, Any] = {
                    "memory_mib": memory[variant],
                    "memory_mib_bare": memory["none"],
                }
                at = _at(built[variant], variant, subject.at)
                rows.append(Row(name, variant, at, **setting, **sizes_of, **mib, **times))
    return rows, left_out


def inputs_of(network: nn.Module, image: Tensor, meta: Tensor) -> tuple[Tensor, ...]:
    """Return what a network is called with: metadata only where it reads them."""
    return (image, meta) if getattr(network, "meta_features", 0) else (image,)


def _at(network: nn.Module, variant: str, at: str | Sequence[str]) -> str:
    """Tell where gates stand, and how many they are."""
    if variant in OF_UNET3:
        return "a network of its own"
    kinds = (ChannelGate, Mechanism)
    names = [name for name, one in network.named_modules() if isinstance(one, kinds)]
    outer = [name for name in names if not any(name.startswith(f"{one}.") for one in names)]
    mechanism = MECHANISMS.get(variant)
    where = at if isinstance(at, str) else "named"
    if mechanism is not None and mechanism.behind == "image":
        where = "image"
    return f"{where} ({len(outer)})"


def _sizes(network: nn.Module, bare: nn.Module) -> dict[str, Any]:
    """Count parameters of the bare network and of this, the share added, and what is frozen."""
    before, after = (sum(one.numel() for one in net.parameters()) for net in (bare, network))
    kept, held = (sum(one.numel() for one in net.buffers()) for net in (bare, network))
    return {
        "parameters_bare": before,
        "parameters": after,
        "added_percent": 100 * (after - before) / before,
        "frozen": held - kept,
    }


def training(network: nn.Module, dtype: str) -> Callable[[tuple[Tensor, ...], Tensor], None]:
    """Return a step of training, called with inputs and label: forward, loss, backward, Adam."""
    optimizer = torch.optim.Adam(network.parameters())
    loss = PixelCrossEntropy()
    half = dtype == "bfloat16"

    def step(inputs: tuple[Tensor, ...], label: Tensor) -> None:
        network.train()
        optimizer.zero_grad()
        with torch.autocast(label.device.type, torch.bfloat16, enabled=half):
            pred = network(*inputs)
        loss(pred, label).backward()
        optimizer.step()

    return step


def inference(network: nn.Module, dtype: str) -> Callable[[tuple[Tensor, ...], Tensor], None]:
    """Return a prediction, called as a step of training is."""
    half = dtype == "bfloat16"

    def step(inputs: tuple[Tensor, ...], label: Tensor) -> None:
        network.eval()
        autocast = torch.autocast(label.device.type, torch.bfloat16, enabled=half)
        with torch.inference_mode(), autocast:
            network(*inputs)

    return step


def held(network: nn.Module, inputs: tuple[Tensor, ...], dtype: str) -> float:
    """Return the MiB that a training step holds, see `Row`; what is in use for a moment is not."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    weights = [one for one in network.parameters() if one.requires_grad]
    fixed = list(network.buffers())
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        pred = network(*inputs)
    for one in (*weights, *fixed):
        kept.pop(one.untyped_storage().data_ptr(), None)
    del pred
    bytes_of = [one.numel() * one.element_size() for one in (*weights, *fixed)]
    state = 3 * sum(bytes_of[: len(weights)])  # gradients and two moments
    return (sum(bytes_of) + state + sum(kept.values())) / 2**20


def interleaved(
    runs: Mapping[str, Callable[[], None]],
    repetitions: int,
    device: str,
    done: Callable[[], Any] = lambda: None,
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
            done()
    return seconds


def _timed(run: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _times(own: list[float], bare: list[float]) -> dict[str, Any]:
    """Return the median ratio of paired seconds, its quartiles, and both times."""
    ratios = [gated / without for gated, without in zip(own, bare, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {
        "ratio": statistics.median(ratios),
        "first_quartile": quartiles[0],
        "third_quartile": quartiles[2],
        "milliseconds": 1000 * statistics.median(own),
        "milliseconds_bare": 1000 * statistics.median(bare),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return a table with a line for each network and variant, times of the bare one first."""
    columns = list(dict.fromkeys((row.step, row.dtype) for row in rows))
    lines = [
        "| network | setting | variant | at | parameters | added | memory | "
        + " | ".join(map(" ".join, columns))
        + " |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |" + " ---: |" * len(columns),
    ]
    for network in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == network]
        first = own[0]
        setting = f"{first.image} {first.layout}, {first.device}, {first.threads} threads"
        times = {(row.step, row.dtype): f"{row.milliseconds_bare:.0f} ms" for row in own}
        held_bare = f"{first.memory_mib_bare:.0f} MiB"
        cells = [network, setting, "none", "", f"{first.parameters_bare:,}", "", held_bare]
        lines.append(_line(cells + [times.get(one, "") for one in columns]))
        for variant in dict.fromkeys(row.variant for row in own):
            those = [row for row in own if row.variant == variant]
            frozen = f", {those[0].frozen:,} frozen" if those[0].frozen else ""
            added = f"{those[0].added_percent:.1f} %{frozen}"
            ratios = {
                (row.step, row.dtype): f"{row.ratio:.3f} "
                f"({row.first_quartile:.3f}-{row.third_quartile:.3f})"
                for row in those
            }
            more = f"{those[0].memory_mib / those[0].memory_mib_bare:.3f}"
            cells = ["", "", variant, those[0].at, f"{those[0].parameters:,}", added, more]
            lines.append(_line(cells + [ratios.get(one, "") for one in columns]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write all rows, a column for each of their names."""
    write_table([asdict(row) for row in rows], path)


def try_folder(folder: Path) -> None:
    """Make a folder, and refuse one that cannot be written to before anything is measured."""
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


if __name__ == "__main__":
    run_script(benchmark)
