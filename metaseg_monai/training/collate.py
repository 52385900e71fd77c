"""How cases become a batch, and a batch what the network and the loss get."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import Dataset, MetaTensor
from monai.data.utils import list_data_collate
from monai.engines import PrepareBatch, PrepareBatchExtraInput
from monai.transforms import Compose, MapTransform, apply_transform
from torch import Tensor, nn
from torch.utils.data import Sampler

from metaseg_monai.errors import (
    ConfigError,
    DataError,
    MetadataError,
    Problem,
    as_refusal,
    root_cause,
)
from metaseg_monai.images.lazy import LazyTensor
from metaseg_monai.inferers.steered import AS_SET
from metaseg_monai.metadata.fields import Categorical, Continuous, Ordinal
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.networks.meta_input import reads_meta
from metaseg_monai.tables.check import image_files
from metaseg_monai.training import processes
from metaseg_monai.transforms.load import LoadCased

# What is not an array and goes into a batch: names, and sizes as tuples of numbers.
NAMES = (
    *("case", "group", "split", "mode", "domain", "file", "volume", "plane", "planes"),
    "pixels",
)
SIZES = ("spacing_mm", "native_shape")
PROBLEM = "problem"  # in the place of an item that could not be read, why

logger = logging.getLogger(__name__)


def batchable(item: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return what of an item goes into a batch: its tensors and arrays, names and sizes.

    Tensors lose their MONAI metadata: every operation of a network on a MetaTensor costs a detour
    through Python, and affines of several cases do not belong in one batch. The path of the image
    is kept as "file", from which the geometry can be read again. Raw values, such as metadata
    before encoding, stay behind: MONAI would drop or transpose them where items differ.

    >>> batchable({"case": "a", "spacing_mm": (5.0, 1.0, 1.0), "metadata": {"size_mm": 3}})
    {'case': 'a', 'spacing_mm': tensor([5., 1., 1.])}
    """
    kept = {}
    for key, value in item.items():
        if isinstance(value, MetaTensor):
            kept[key] = value.as_tensor().contiguous()
        elif isinstance(value, LazyTensor):
            kept[key] = value
        elif isinstance(value, (Tensor, np.ndarray)) or key in SIZES:
            kept[key] = torch.as_tensor(value).contiguous()
        elif key in NAMES:
            kept[key] = value
    image = item.get("image")
    if isinstance(image, MetaTensor | LazyTensor) and "filename_or_obj" in image.meta:
        kept.setdefault("file", str(image.meta["filename_or_obj"]))
    return kept


def as_rows(meta: Tensor, count: int) -> Tensor:
    """Encoded metadata as that of other cases of a batch, see `SteeredInferer`.

    Args:
        meta: (M,) of a value, (2, M) both ends of a range, (3, M) with a guidance of its own.
        count: rows of the result.

    >>> as_rows(torch.ones(2), 3).tolist()
    [[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]]
    """
    if meta.ndim == 1:  # both ends of one value are the same
        meta = meta.expand(2, -1)
    if len(meta) < count:
        meta = torch.cat([meta, torch.full_like(meta[:1], AS_SET)])
    return meta


def collate_cases(batch: Sequence[Mapping[str, Any] | list[Mapping[str, Any]]]) -> dict[str, Any]:
    """Join what is `batchable` of items into a batch, and refuse items that differ.

    Args:
        batch: one dict per item, or one list of dicts where a transform crops several samples.

    Returns:
        The batch, `image` (B, C, *S), `label` (B, 1, *S), `meta` (B, M), or (B, 2, M) where a
        value of one is a range, "case" a list of B. Of
        items that are problems (`metaseg_monai.evaluation.SiftedDataset`) it has these alone, as
        the list "problem"; where all are, "case" is empty.

    Raises:
        DataError: A key is missing in one item, or its shapes differ; names the cases.

    Example:
        >>> batch = collate_cases([{"case": name, "meta": np.ones(2)} for name in ("a", "b")])
        >>> batch["case"], batch["meta"].shape
        (['a', 'b'], torch.Size([2, 2]))
    """
    raw: list[Mapping[str, Any]] = []
    for item in batch:
        raw += item if isinstance(item, list) else [item]
    problems = [item[PROBLEM] for item in raw if PROBLEM in item]
    raw = [item for item in raw if PROBLEM not in item]
    if not raw:
        return {"case": [], PROBLEM: problems}
    cases = [str(sample.get("case", f"item {place}")) for place, sample in enumerate(raw)]
    samples = [batchable(sample) for sample in raw]
    most = max(len(s["meta"]) if np.ndim(s.get("meta", 0)) == 2 else 1 for s in samples)
    for sample in samples:
        if most > 1 and "meta" in sample:
            sample["meta"] = as_rows(sample["meta"], most)
    for key in dict.fromkeys(key for sample in samples for key in sample):
        (first, shape), *others = [
            (case, tuple(np.shape(sample[key])))
            for case, sample in zip(cases, samples, strict=True)
            if key in sample
        ]
        for case, sample, given in zip(cases, samples, raw, strict=True):
            if key not in sample:
                found = f"holds {type(given[key]).__name__} there" if key in given else "has none"
                raise DataError(
                    f"Case {first} has {key!r} to put in a batch, but case {case} "
                    f"{found}. Give every case {key!r}, or none."
                )
        for case, other in others:
            if other != shape:
                raise DataError(
                    f"Cases of one batch differ in the shape of {key!r}: {shape} in case {first}, "
                    f"{other} in case {case}. Crop or pad them to one size in the transforms (e.g. "
                    "RandSpatialCropd, SpatialPadd), or set the batch size to 1: val_batch_size "
                    "for validation and tests, which see whole images."
                )
    lazy = [key for key, one in samples[0].items() if isinstance(one, LazyTensor)]
    alone = {key: samples[0].pop(key)[None] for key in lazy if len(samples) == 1}
    joined: dict[str, Any] = {**list_data_collate(samples), **alone}
    return {**joined, PROBLEM: problems} if problems else joined


class SiftedDataset(Dataset):
    """Items after transforms; in the place of one that cannot be read its problem.

    `collate_cases` puts the problems of a batch under "problem", beside what could be read. The
    planes of a volume that one of them has shown to be damaged are not tried again; another row
    of the same file is. Large images are loaded lazily where all transforms take that.

    Args:
        data: one dict per case or plane.
        transform: one or a list, as of MONAI's Dataset.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Any = None) -> None:
        super().__init__(data, transform)
        parts = transform if isinstance(transform, Sequence) else [transform]
        if isinstance(parts[0] if parts else None, LoadCased):
            parts[0].lazily = all(getattr(part, "takes_lazy", False) for part in parts[1:])
        self._broken: dict[tuple[str, ...] | None, Problem] = {}

    def __getitem__(self, index: Any) -> Any:
        """The item, or {"problem": its problem}."""
        item = self.data[index]
        volume = (*_files_of(item), str(item["volume"])) if "volume" in item else None
        if volume in self._broken:
            return {PROBLEM: self._broken[volume]}
        try:
            return apply_transform(self.transform, dict(item)) if self.transform else dict(item)
        except Exception as error:
            found = problem_of(item, error)
            if volume is not None:
                self._broken[volume] = found
            return {PROBLEM: found}


def problem_of(item: Mapping[str, Any], error: BaseException) -> Problem:
    """The row of ``problems.csv`` that an error in reading an item makes.

    Args:
        item: with `image`, `case` and, of a plane, `volume`.
        error: of ours, or any other, which is told by its type.
    """
    case, files = str(item.get("volume", item.get("case", "?"))), _files_of(item)
    refusal = as_refusal(error)
    if refusal is None:
        cause = root_cause(error)
        told = " ".join(f"{type(cause).__name__}: {cause}".split())
        return Problem(case, _first(files), f"unforeseen {told}", "leave it out, or save it anew")
    text = DataError(str(refusal).removeprefix(f"case {str(item.get('case'))!r}: "))
    named = [file for file in files if str(text).startswith(f"{file}: ")]
    return Problem.of_error(case, _first(named or files), _first(named), text)


def _first(files: Sequence[str]) -> str:
    return files[0] if files else ""


def _files_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of an item's image and label; none of what is given as arrays."""
    if not isinstance(item["image"], str | Path | list | tuple):
        return ()
    labels = [item[key] for key in ("label", "mask") if key in item]
    named = [one for one in labels if isinstance(one, str | Path | list | tuple)]
    return (*image_files(item), *(file for one in named for file in image_files({"image": one})))


def skip_empty(engine: Engine, batch: Mapping[str, Any]) -> Any:
    """Iteration of an evaluator (`iteration_update`) that passes over batches without any case.

    Such becomes that of a large image whose file can no longer be read when its windows are run.
    """
    try:
        return engine._iteration(engine, batch) if batch["case"] else {}
    except DataError as error:
        if not isinstance(batch.get("image"), LazyTensor):
            raise
        item = {"case": batch["case"][0], "image": batch["file"][0]}
        engine.state.batch = collate_cases([{PROBLEM: problem_of(item, error)}])
        return {}


class VolumeBatches(Sampler[list[int]]):
    """Batches of consecutive slices of one volume; an item without a volume goes alone.

    Volumes differ in shape, and images differ more often than not; the slices of one volume never
    do. The order of the items is kept, so that each volume is read once.

    Args:
        items: the dataset's, where slices name their `volume`.
        batch_size: largest number of slices in a batch.

    Raises:
        ConfigError: `batch_size` is below 1.

    Example:
        >>> items = [{"volume": name} for name in "aaab"] + [{"case": "photo"}]
        >>> list(VolumeBatches(items, batch_size=2))
        [[0, 1], [2], [3], [4]]
    """

    def __init__(self, items: Sequence[Mapping[str, Any]], batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number from 1, got {batch_size!r}.")
        self.batches: list[list[int]] = []
        before = None
        for place, item in enumerate(items):
            volume = item.get("volume")
            if volume is None or volume != before or len(self.batches[-1]) == batch_size:
                self.batches.append([])
            self.batches[-1].append(place)
            before = volume

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the places of the items of each batch."""
        return iter(self.batches)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)


class PrepareBatchMeta(PrepareBatchExtraInput):
    """Give a trainer or evaluator image and label, and `meta` to a network that reads metadata.

    Args:
        network: tells by its `meta_features` whether it does (0: no); one without that attribute
            by an argument `meta` of its forward. Also inside DistributedDataParallel.

    Attributes:
        reads_metadata: whether batches need `meta`.
    """

    def __init__(self, network: nn.Module) -> None:
        network = processes.bare_network(network)
        self.reads_metadata = reads_meta(network)
        if not self.reads_metadata and not hasattr(network, "meta_features"):
            logger.warning(
                "%s has no argument meta in its forward: it sees the image alone, whatever the "
                "metadata say",
                type(network).__name__,
            )
        super().__init__({"meta": "meta"} if self.reads_metadata else {})

    def __call__(self, batchdata: Any, *args: Any, **kwargs: Any) -> Any:
        """Return image (B, C, *S), label (B, 1, *S) or None, (), and {"meta": (B, M)} or {}.

        Raises:
            DataError: the network reads metadata, but the batch has none.
        """
        if self.reads_metadata:
            _check_meta(batchdata, "for a network that reads it")
        return super().__call__(batchdata, *args, **kwargs)


# Parallel training of several heads: the rows of one image become one item (contract 9).

HEADS, VALID = "heads", "valid"


def join_heads(
    items: Sequence[Mapping[str, Any]], schema: MetadataSchema, heads: str
) -> list[dict[str, Any]]:
    """Join the rows of each image, which have a label of one task each, into one item.

    Args:
        items: of a table, with raw `metadata`.
        schema: of their metadata.
        heads: its field whose values are the tasks, as of `MultiHeadUnet3`.

    Returns:
        An item an image, in the order they came: that of its first row, with all its rows under
        "heads", one for each task, None where the image has none.

    Raises:
        MetadataError: the schema has no such field, or a row has no value of it.
        DataError: two rows of an image have the same task, or are of different splits.

    >>> field = {"kind": "categorical", "name": "task", "values": ["disc", "ring"],
    ...          "provenance": "acquisition", "availability": "acquisition"}
    >>> rows = [{"case": task, "image": "a.png", "split": "train", "metadata": {"task": task}}
    ...         for task in ("ring", "disc")]
    >>> [[row["case"] for row in item["heads"]]
    ...  for item in join_heads(rows, MetadataSchema([field]), "task")]
    [['disc', 'ring']]
    """
    width = schema.field(heads).width
    of_image: dict[tuple[str, ...], list[dict[str, Any] | None]] = {}
    for item in items:
        rows = of_image.setdefault(image_files(item), [None] * width)
        code = schema.encode(item["metadata"], case=str(item["case"]))
        task = int(code[schema.slices[heads]].argmax())
        other = rows[task] or next((row for row in rows if row is not None), item)
        if rows[task] is not None or other.get("split") != item.get("split"):
            raise DataError(
                f"Cases {other['case']} and {item['case']} have one image and the same {heads}, "
                "or are of different splits; leave one out, or put both into one split."
            )
        rows[task] = dict(item)
    return [
        {**next(row for row in rows if row is not None), HEADS: rows} for rows in of_image.values()
    ]


class JoinHeadsd(MapTransform):
    """Put the labels of all rows of an item of `join_heads` side by side.

    It stands behind the preprocessing, which has read the item's first row: `label` (1, *S) becomes
    (T, *S), zeros where the image has no label of a task, and `valid` (T,) tells which it has.
    `meta` of the one row is left out: the item has all tasks.

    Args:
        preprocessing: which reads the other rows' labels.
    """

    def __init__(self, preprocessing: Sequence[Any]) -> None:
        super().__init__(HEADS)
        self.read = Compose(list(preprocessing))

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return the item with the joined label.

        Raises:
            DataError: the labels of one image differ in size, or a row has none.
        """
        item = dict(data)
        rows = item.pop(HEADS)
        item.pop("meta", None)
        first = next(row for row in rows if row is not None)
        own = item.get("label")
        labels = []
        for row in rows:
            label = own
            if row is not None and row is not first:
                label = self.read(dict(row)).get("label")
            if own is None or label is None or label.shape != own.shape:
                wrong = first if own is None else row or first
                found = "no label" if label is None else f"a label of {tuple(label.shape)}"
                raise DataError(
                    f"Case {wrong.get('case', '?')} has {found}, unlike the other cases of its "
                    "image: give each a label of the image's size, or leave it out."
                )
            labels.append(torch.zeros_like(own) if row is None else label)
        item["label"] = torch.cat(labels)
        item[VALID] = torch.tensor([row is not None for row in rows])
        return item


class PrepareBatchHeads(PrepareBatch):
    """Give a trainer the image, and as its target the labels of all heads with their mask.

    The network gets no metadata, so that all its heads answer, for `HeadsCrossEntropy`.
    """

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return images (B, C, *S), and labels (B, T, *S) with their mask (B, T).

        Raises:
            DataError: the batch has no mask: its items were not joined.
        """
        if VALID not in batchdata:
            raise DataError(
                "The batch has no mask of heads: give the dataset the items of join_heads, and put "
                "JoinHeadsd behind the preprocessing."
            )
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        target = (batchdata["label"].to(**move), batchdata[VALID].to(device=device))
        return batchdata["image"].to(**move), target


def _check_meta(batchdata: Mapping[str, Any], purpose: str) -> None:
    if "meta" not in batchdata:
        raise DataError(
            f"The batch has no encoded metadata {purpose}; put EncodeMetadatad into the transforms."
        )


Told = Continuous | Categorical | Ordinal  # fields of which an image may show the value


def estimated_field(schema: MetadataSchema, name: str | None = None) -> Told:
    """The field that a network estimates from the image, a quantity or one of several names.

    Args:
        schema: of the metadata.
        name: of the field; None for the first quantity, else the first field of names.

    Raises:
        MetadataError: The named field is not in the schema or of another kind, or there is none.
    """
    fitting = [field for field in schema.fields if isinstance(field, Told)]
    fitting.sort(key=lambda field: not isinstance(field, Continuous))
    if name is None:
        if not fitting:
            raise MetadataError(
                "Only a quantity, a category or a step can be estimated from the image; the schema "
                f"has {', '.join(f'{field.name} ({field.kind})' for field in schema.fields)}. Use "
                "a bundle or schema_file with a size, a magnification, a cell line or the like."
            )
        return fitting[0]
    field = schema.field(name)
    if not isinstance(field, Told):
        raise MetadataError(
            f"estimate_field {name!r} is {field.kind}, but only a field with one value a case can "
            f"be estimated: {', '.join(one.name for one in fitting) or 'this schema has none'}."
        )
    return field


def outputs_of(field: Told) -> int:
    """Numbers that a network gives to estimate a field: 1, or as many as it has names."""
    return 1 if isinstance(field, Continuous) else len(field.values)


class EstimateLoss(nn.Module):
    """Smooth L1 of codes, or cross-entropy of names, as the network gives one number or several.

    Args:
        beta: of `SmoothL1Loss`.
    """

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The mean loss of `pred` (B, outputs) and `target` (B, 1): codes, or places of names."""
        if pred.shape[1] == 1:
            return nn.functional.smooth_l1_loss(pred, target, beta=self.beta)
        return nn.functional.cross_entropy(pred, target[:, 0].long())


class FieldTarget(PrepareBatch):
    """Give a trainer or evaluator the image, and as its target the code of one field.

    Args:
        schema: that `meta` of the batch was encoded with.
        field: the quantity, whose code has one entry for the value, or the names.

    Raises:
        MetadataError: the schema has no such field.
    """

    def __init__(self, schema: MetadataSchema, field: Told) -> None:
        schema.field(field.name)
        self.name, self.field = field.name, field
        self.entry = schema.slices[field.name].start

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return images (B, C, *S) and targets (B, 1): 0 to 1 inside the range, or a name's place.

        A missing value gives 0: leave such items out of training (`known_items`).

        Raises:
            DataError: the batch has no `meta`.
        """
        _check_meta(batchdata, f"to learn {self.name!r} from")
        meta = batchdata["meta"]
        meta = meta[:, 0] if meta.ndim == 3 else meta  # of another field: `known_items` are single
        target = meta[:, self.entry : self.entry + outputs_of(self.field)]
        if isinstance(self.field, Categorical):
            target = target.argmax(1, keepdim=True).to(meta)
        elif isinstance(self.field, Ordinal):  # a thermometer
            target = target.sum(1, keepdim=True) - 1
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        return batchdata["image"].to(**move), target.to(**move)
