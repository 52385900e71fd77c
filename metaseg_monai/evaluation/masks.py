"""Write the predicted mask of every case beside its name, and that of every volume in its shape."""

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError, Problem, listing
from metaseg_monai.evaluation.per_case import Case, PerCase
from metaseg_monai.files import PREFIX, file_sha256, replacing
from metaseg_monai.images.geometry import AxialVolume
from metaseg_monai.images.image import image_format
from metaseg_monai.images.read import is_volume_file, read_header, volume_header
from metaseg_monai.images.write import mask_suffix, write_mask
from metaseg_monai.inferers.sliding import SlidingWindowMetadataInferer
from metaseg_monai.naming import likened, shortened
from metaseg_monai.tables.check import image_files
from metaseg_monai.training.checkpoints import MASKS as NAME
from metaseg_monai.training.checkpoints import TRAINED_ON
from metaseg_monai.training.handlers import refuse_non_finite
from metaseg_monai.training.processes import hear_of_errors
from metaseg_monai.training.trained_on import read_trained_on
from metaseg_monai.training.weights import LoadWeights
from metaseg_monai.transforms.postprocessing import AsMaskd, background_shift, check_sizes, clean_up

logger = logging.getLogger(__name__)

# Small objects and holes taken out of predictions, in testing and in prediction alike.

SIZES = ("object_px", "hole_px")
EXPECTED = (
    f'expected {" and ".join(SIZES)}, as {{"object_px": 30, "hole_px": 30}}, or null for none'
)


def clean_logits(logits: Tensor, object_px: int, hole_px: int, background: float = 0.0) -> Tensor:
    """Change logits so that their best classes are the cleaned mask.

    Where the mask is changed, the new class takes the highest logit of the pixel and all others
    lie at least 1 below; every other pixel keeps its logits. Masks that are resized afterwards are
    therefore cleaned too, while probabilities of changed pixels no longer mean anything.

    Args:
        logits: (B, K, *S), or classes (B, 1, *S), which are cleaned as they are.
        object_px: see `metaseg_monai.transforms.clean_up`; likewise `hole_px`.
        hole_px: see `object_px`.
        background: what is added to the logits of class 0 when masks are made of them, see
            `background_shift`; the best classes, and the highest logits, are those after that.

    Returns:
        float32 (B, K, *S), on the device of the logits.

    >>> logits = torch.zeros(1, 2, 3, 3)
    >>> logits[0, 1, 1, 1] = 5.0  # a speck of one pixel
    >>> clean_logits(logits, object_px=2, hole_px=0)[0, :, 1, 1].tolist()
    [5.0, 4.0]
    """
    if not logits.is_floating_point():
        maps = [clean_up(one[0].cpu().numpy(), object_px, hole_px) for one in logits]
        return torch.from_numpy(np.stack(maps))[:, None]
    logits = logits.float()  # below 1 apart, bfloat16 cannot tell large logits
    shift = torch.zeros(logits.shape[1], device=logits.device)
    shift[0] = background
    shift = shift.view(1, -1, *[1] * (logits.ndim - 2))
    shifted = logits + shift if background else logits
    best = shifted.argmax(1)
    masks = [clean_up(mask.cpu().numpy(), object_px, hole_px) for mask in best]
    cleaned = torch.stack([torch.from_numpy(mask) for mask in masks]).to(best.device)
    changed = (cleaned != best).unsqueeze(1)
    highest = shifted.amax(1, keepdim=True)
    classes = torch.arange(logits.shape[1], device=logits.device)
    new = classes.view_as(shift) == cleaned.unsqueeze(1)
    told = torch.where(new, highest, torch.minimum(shifted, highest - 1))
    return torch.where(changed, told - shift if background else told, logits)


class CleanUpPredictions:
    """Evaluator handler that removes small objects and fills small holes of predictions.

    Handlers that are listed later (counts, samples, masks) see the cleaned prediction. What reads
    probabilities, such as `CalibrationBins` or a watershed of the probability map, belongs before
    it in the list. Sizes are in pixels of the network's image, after any resampling.

    Args:
        sizes: {"object_px": smallest object kept, "hole_px": smallest hole kept}, see
            `metaseg_monai.transforms.clean_up`; one that is absent is off. None: all is off.
        threshold: of the masks that are made of the predictions, as that of `AsMaskd`.

    Raises:
        ConfigError: no mapping, an unknown key, a size that is no whole number from 0, or the
            threshold is not between 0 and 1.
    """

    def __init__(self, sizes: Mapping[str, int] | None, threshold: float = 0.5) -> None:
        if sizes is not None and not isinstance(sizes, Mapping):
            raise ConfigError(f"clean_up is {sizes!r}; {EXPECTED}")
        unknown = sorted(map(str, set(sizes or {}) - set(SIZES)))
        if unknown:
            raise ConfigError(f"clean_up: unknown key {unknown[0]!r}; {EXPECTED}")
        self.object_px, self.hole_px = ((sizes or {}).get(name, 0) for name in SIZES)
        check_sizes(self.object_px, self.hole_px)
        self.background = background_shift(threshold)

    def attach(self, engine: Engine) -> None:
        """Clean after every batch, unless all sizes are 0."""
        if max(self.object_px, self.hole_px) > 1:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Replace the logits of the batch by cleaned ones."""
        output = engine.state.output
        sizes = self.object_px, self.hole_px
        output["pred"] = clean_logits(output["pred"], *sizes, self.background)


# Which files in a folder are masks as a prediction wrote them, so that no other is replaced, and
# what each was made of, so that a prediction goes on where it was stopped.

KNOWN_BY = ("case", "group", "volume")
COMMENT = "# "  # sha256sum passes over such lines


class MaskRecord:
    """The list ``predicted.sha256`` in a folder of masks, in the form of `sha256sum`.

    It has a line for each file that is written, listed before the file gets its name: so a kill or
    a full disk leaves no file that the list does not know. A file may be replaced only if it is
    still what a line of its name says, so that neither a scan nor a mask corrected by hand is lost.
    A comment before the line says of which weights, settings, metadata and image the mask was made,
    and a case whose mask is still there, of the same, is not predicted again.

    Args:
        folder: of the masks.
        weights: those that predict; without them nothing is known of what masks are made of.
        settings: of the prediction, as `metaseg_monai.bundle.effective` gives them.
        tables: names of files that all cases together make; where one is not there as listed, one
            case is predicted again.

    Attributes:
        files: file of each case (or volume) that is predicted, before or now.
    """

    def __init__(
        self,
        folder: str | Path,
        weights: LoadWeights | None = None,
        settings: Mapping[str, Any] | None = None,
        tables: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self.weights = weights
        self.settings = dict(settings or {})
        self.tables = tables
        self.files: dict[str, Path] = {}
        self._splits: dict[str, str] | None = None
        self.kept: dict[str, Any] = {}  # cases of an earlier prediction, with what is known of each
        self._items: dict[str, list[Mapping[str, Any]]] = {}
        self._digests: dict[str, set[str]] = {}  # of each name, by the list
        self._last: dict[str, tuple[str, str]] = {}  # digest and comment of each name

    def missing(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The items whose masks are not there yet, made of these weights, settings and images.

        Args:
            items: all, as `find_cases` or `slice_items` give them.

        Raises:
            DataError: the list cannot be read.
        """
        self._read()
        self.files, self.kept, self._items = {}, {}, _by_name(items)
        known: dict[Any, tuple[str, str, dict[str, Any]]] = {}
        for name, (digest, comment) in self._last.items():
            told = _told(comment)
            if told.get("of") is not None:
                known[told.get("case")] = (name, digest, told)
        for case, parts in self._items.items():
            if case not in known:
                continue
            name, digest, made = known[case]
            path = self.folder / name
            if self._is(path, digest) and made["of"] == self._made_of(parts):
                self.files[case], self.kept[case] = path, made.get("rows")
        names = [case for case in self._items if case not in self.files]
        if not names and items and not all(self._wrote(self.folder / one) for one in self.tables):
            names = [list(self._items)[-1]]
            del self.files[names[0]], self.kept[names[0]]
        if self.files:
            count = f"{len(self.files)} of {len(self._items)}"
            logger.warning("%s: %s are predicted already, as asked for", self.folder, count)
        return [item for name in names for item in self._items[name]]

    @property
    def cases(self) -> list[str]:
        """All cases and volumes, in the order of their items."""
        return list(self._items)

    @property
    def cases_done(self) -> list[str]:
        """Those of them that have a mask."""
        return [case for case in self._items if case in self.files]

    def _made_of(self, parts: Sequence[Mapping[str, Any]]) -> str | None:
        """A digest of all that a mask depends on; None where the weights are not known."""
        weights = None if self.weights is None else self.weights.recorded.get("weights_sha256")
        if weights is None:
            return None
        first = parts[0]
        images = [] if isinstance(first["image"], Tensor | np.ndarray) else image_files(first)
        if not images:
            return None
        told = {
            "weights": weights,
            "settings": self.settings,
            "metadata": [part.get("metadata", {}) for part in parts],
            "images": [_sha256(Path(image)) for image in images],
            "planes": [part.get("plane") for part in parts],
        }
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _read(self) -> None:
        self._digests, self._last = {}, {}
        if not self.path.exists():
            return
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")  # names may hold \x85, \u2028
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: no list of masks ({error}); choose another output"
            ) from error
        comment = ""
        for line in lines:
            if found := re.fullmatch(r"([0-9a-f]{64})  (.+)", line):
                digest, name = found.groups()
                self._digests.setdefault(name, set()).add(digest)
                self._last[name] = digest, comment
            comment = line.removeprefix(COMMENT) if line.startswith(COMMENT) else ""

    def claim(
        self,
        paths: Mapping[str, Path],
        items: Iterable[Mapping[str, Any]],
        what: Literal["mask", "objects"] = "mask",
        beside: Sequence[Path] = (),
    ) -> None:
        """Read the list; see that nothing but its masks would be replaced; make the folder.

        What a killed prediction left half-written is removed.

        Args:
            paths: file to be written, by case or volume.
            items: whose images must stay; links are followed.
            what: of a case is written.
            beside: further files to be written.

        Raises:
            DataError: the list cannot be read, two cases have one file, a file would replace an
                image or what is no earlier prediction, or the folder cannot be made; names them.
        """
        self._read()
        for path, times in Counter([*paths.values(), *self.files.values()]).items():
            if times > 1:
                both = {**self.files, **paths}
                names = ", ".join(name for name, other in both.items() if other == path)
                one = "mask" if what == "mask" else "file"
                raise DataError(f"{names} would have the one {one} {path}; give them other names.")
        items = list(items)
        self._items |= _by_name(items)
        inputs = {Path(file).resolve() for item in items for file in image_files(item)}
        for name, path in paths.items():
            if path.resolve() in inputs:
                raise DataError(
                    f"The {what} of {name!r} would replace the image {path}; choose another output."
                )
        foreign = [
            self._name(path)
            for path in (*paths.values(), *beside)
            if path.exists() and not self._wrote(path)
        ]
        if foreign:
            raise DataError(
                f"{self.folder}: {len(foreign)} file(s) would be replaced that are no masks as "
                f"predicted before ({NAME}): {listing(foreign, 10)}; choose another output, or "
                "move them away"
            )
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in {path.parent for path in paths.values()}:
                for part in folder.glob(f"{PREFIX}*"):  # the folder is this process's own
                    part.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say what to do where the folder, or a file in it, cannot be written.

        Raises:
            DataError: in place of an OSError of the block.
        """
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({error}); free the disk, or choose another "
                "output. Masks that are finished stay"
            ) from error

    @contextmanager
    def listed(self, path: Path, case: str | None = None, rows: Any = None) -> Iterator[Path]:
        """Give a temporary path to write; list what was written, then give it its name.

        Args:
            path: the file to be.
            case: or volume whose prediction it is; None for what all cases make together.
            rows: plain values to be known of the case when a later prediction goes on.

        Raises:
            DataError: it cannot be written; what is finished stays.
        """
        with self.writing(), replacing(path) as part:
            yield part
            told: dict[str, Any] = {}
            if case is not None:
                weights = None if self.weights is None else self.weights.recorded
                told = {"case": case, "of": self._made_of(self._items.get(case, [{"image": []}]))}
                told |= {"weights_sha256": (weights or {}).get("weights_sha256"), "rows": rows}
                told["trained"] = self._trained(case)
            told = {key: value for key, value in told.items() if value is not None}
            comment = json.dumps(told) if "of" in told else ""
            self._add(self._name(path), file_sha256(part), comment)
        if case is not None:
            self.files[case] = path

    def _trained(self, case: str) -> str | None:
        """The split of the training that a case's name or group stands in, "" for none.

        None where no ``trained_on.csv`` lies beside the weights.
        """
        if self.weights is None:
            return None
        file = self.weights.path.with_name(TRAINED_ON)
        if not file.is_file():
            return None
        if self._splits is None:
            rows = read_trained_on(file, self.weights)
            rows = rows.sort_values("split", ascending=False)  # train after val, so that it counts
            self._splits = {
                likened(text): split
                for name in ("case", "group")
                for text, split in zip(rows[name], rows["split"], strict=True)
            }
        items = self._items.get(case, [])
        names = [case, *(str(item.get(name, "")) for item in items for name in KNOWN_BY)]
        splits = (self._splits.get(likened(name)) for name in names if name)
        return next(filter(None, splits), "")

    def _add(self, name: str, digest: str, comment: str) -> None:
        lines = f"{COMMENT}{comment}\n" * bool(comment) + f"{digest}  {name}\n"
        with self.path.open("a+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end:  # a full disk may have cut the last line
                stream.seek(end - 1)
                lines = lines if stream.read(1) == b"\n" else f"\n{lines}"
            stream.write(lines.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._digests.setdefault(name, set()).add(digest)
        self._last[name] = digest, comment

    def finish(self) -> list[Path]:
        """Leave one line a mask, in the order of the names; return the list, if there is one."""
        if not self._last:
            return []
        with self.writing(), replacing(self.path) as part:
            lines = [
                f"{COMMENT}{comment}\n" * bool(comment) + f"{digest}  {name}\n"
                for name, (digest, comment) in sorted(self._last.items())
            ]
            part.write_text("".join(lines), encoding="utf-8", newline="\n")
        return [self.path]

    def _wrote(self, target: Path) -> bool:
        known = self._digests.get(self._name(target))
        return known is not None and target.is_file() and file_sha256(target) in known

    def _is(self, path: Path, digest: str) -> bool:
        return path.is_file() and file_sha256(path) == digest

    def _name(self, mask: Path) -> str:
        return mask.relative_to(self.folder).as_posix()


class MadeBy(NamedTuple):
    """Of which weights a mask is, and what its case was to them.

    Attributes:
        weights_sha256: as in their facts; "" where nobody knows.
        trained: train, val, "" where the case was not in the training, None where nobody knows.
    """

    weights_sha256: str = ""
    trained: str | None = None


def predicted_masks(folder: Path) -> dict[str, MadeBy]:
    """What is known of each mask of a prediction that is as it was written, by its file.

    Args:
        folder: of masks, with their list.
    """
    record = MaskRecord(folder)
    record._read()
    return {
        name: MadeBy(told.get("weights_sha256", ""), told.get("trained"))
        for name, (digest, comment) in record._last.items()
        for told in [_told(comment)]
        if record._is(folder / name, digest)
    }


def _told(comment: str) -> dict[str, Any]:
    try:
        told = json.loads(comment)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _by_name(items: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The items by what gets a mask: a case, or the volume that planes are of."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    are_volumes: dict[str, bool] = {}
    for item in items:
        image, name = item["image"], item["case"]
        if "plane" in item and isinstance(image, str):
            if image not in are_volumes:
                are_volumes[image] = is_volume_file(image)
            name = item["volume"] if are_volumes[image] else name
        found.setdefault(str(name), []).append(item)
    return found


def _sha256(image: Path) -> str | list[str] | None:
    """The content of an image's file, or of all files of a series; None where it is not there."""
    try:
        if image.is_dir():
            return [file_sha256(file) for file in sorted(image.iterdir()) if file.is_file()]
        return file_sha256(image)
    except OSError:
        return None


@dataclass
class _Stack:
    """A volume's mask in the making: classes (D, H, W) and which planes came."""

    view: AxialVolume
    attributes: dict[str, Any]
    classes: np.ndarray
    came: np.ndarray

    def missing(self) -> str:
        planes = np.flatnonzero(~self.came).tolist()
        shown = ", ".join(map(str, planes[:10])) + (", ..." if len(planes) > 10 else "")
        return f"{len(planes)} of {len(self.came)} planes ({shown})"


class SaveMasks:
    """Evaluator handler: one mask of class numbers for each case, in the format of its image.

    A NIfTI mask has the affine of its image. The slices of a volume become one mask with the
    shape, affine and axes of the volume's file, written when all its planes came; one byte a voxel
    is held until then. Where the batch has `native_shape` (B, 2), logits are resized to it first.
    Each file is written whole or not at all. Before the next batch is read, the engine's last batch
    and output are let go: of large images no two then take memory.

    A mask is named by its case, or as the item's `mask` says (see `find_cases`). The folder also
    gets a list of the masks, `predicted.sha256`; an existing file is replaced only where it is
    still as a prediction before wrote it (see `MaskRecord`).

    Raises:
        DataError: a mask would replace an image, any other file that is no mask as predicted
            before, or another mask of the run, a plane comes twice, or the run ends before all
            planes of a volume came.

    Args:
        folder: where the masks go.
        postprocessing: transforms that make the mask `pred` (1, *S) of the logits `pred` (K, *S)
            of a case; `AsMaskd` alone by default.
        record: of the masks; by default one that knows no weights.
        problems: gets the volumes whose planes did not all come, in the place of an error.
        inferer: of the windows, which is told to give classes where `postprocessing` begins with
            `AsMaskd` and nothing is resized: they take a byte a pixel, logits four for each class.

    Attributes:
        paths: file of the mask of each case and volume, known when the run starts.
    """

    def __init__(
        self,
        folder: str | Path,
        postprocessing: Sequence[Callable[[Any], Any]] | None = None,
        record: MaskRecord | None = None,
        problems: list[Problem] | None = None,
        inferer: SlidingWindowMetadataInferer | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.problems = problems
        self.inferer = inferer
        self.postprocessing = Compose([AsMaskd()] if postprocessing is None else postprocessing)
        self.paths: dict[str, Path] = {}
        self._items: dict[str, Mapping[str, Any]] = {}
        self._volumes: set[str] = set()
        self._stacks: dict[str, _Stack] = {}
        self._record = MaskRecord(folder) if record is None else record

    def attach(self, engine: Engine) -> None:
        """Write after every batch."""
        PerCase(self.folder, self).attach(engine)
        if self.inferer is not None:
            engine.add_event_handler(Events.ITERATION_STARTED, self._ask_for_classes, self.inferer)
        engine.add_event_handler(Events.GET_BATCH_STARTED, let_go)  # every handler is done then
        hear_of_errors(engine, self._tell_unfinished)

    def _ask_for_classes(self, engine: Engine, inferer: SlidingWindowMetadataInferer) -> None:
        """Have the inferer give the classes of this batch, where they are all that is needed."""
        as_mask, batch = next(iter(self.postprocessing.transforms), None), engine.state.batch
        inferer.reduce = None
        if not isinstance(as_mask, AsMaskd) or "native_shape" in batch:
            return

        def classes(logits: Tensor) -> Tensor:
            refuse_non_finite(logits, batch["image"], engine.state)
            return as_mask.classes(logits)

        inferer.reduce = classes

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn which files must not be written, and which cases are planes of volumes."""
        self._items = {item["case"]: item for item in items}
        sliced = [item["image"] for item in items if "plane" in item]
        files = {file for file in sliced if isinstance(file, str)}
        self._volumes = {file for file in files if is_volume_file(file)}
        self._stacks = {}
        self.paths = {self._name(item): self._path(item) for item in items}
        self._record.claim(self.paths, items)

    def __call__(self, case: Case) -> tuple[()]:
        """Write the mask of a case, or put it as a plane into its volume."""
        item = self._items[case["case"]]
        mask = np.asarray(self.postprocessing(dict(case))["pred"][0])
        if self._is_plane(item):
            self._put(item, mask)
        elif mask.ndim == 3 and "native_shape" in case:  # turned by AxialVolumed
            view, attributes = volume_header(item["image"])
            self._write(item, view.restore(np.moveaxis(mask, -1, 0)), attributes)
        else:
            self._write(item, mask, read_header(item["image"]))
        return ()

    def write(self, path: Path, found: list[Any]) -> list[Path]:
        """Refuse to end while planes of a volume are missing.

        Raises:
            DataError: names the volumes and their planes; they have no mask.
        """
        unfinished = self._unfinished()
        written = self._record.finish()
        if self.problems is not None:
            self._list_unfinished(self.problems)
            unfinished = ""
        self._stacks = {}
        if unfinished:
            raise DataError(
                f"The run ended without all planes; missing are {unfinished}. No mask was written "
                "there; run over all planes of a volume."
            )
        return written

    def _list_unfinished(self, problems: list[Problem]) -> None:
        known = {problem.case for problem in problems}
        step = "run over all planes of the volume"
        problems += [
            Problem(name, "", f"no mask, as these are missing: {stack.missing()}", step)
            for name, stack in self._stacks.items()
            if name not in known
        ]

    def _tell_unfinished(self, engine: Engine, error: BaseException) -> None:
        if unfinished := self._unfinished():
            engine.logger.warning(f"No mask was written where planes miss: {unfinished}.")
        self._stacks = {}

    def _unfinished(self) -> str:
        return "; ".join(
            f"{name}: {stack.missing()}"
            for name, stack in self._stacks.items()
            if not stack.came.all()
        )

    def _put(self, item: Mapping[str, Any], mask: np.ndarray) -> None:
        """Put one plane into its volume, and write the volume when it was the last."""
        name = self._name(item)
        if name not in self._stacks:
            view, attributes = volume_header(item["image"])
            shape = view.planes.shape
            stack = _Stack(view, attributes, np.zeros(shape, mask.dtype), np.zeros(shape[0], bool))
            self._stacks[name] = stack
        stack, plane = self._stacks[name], item["plane"]
        if stack.came[plane] or mask.shape != stack.classes.shape[1:]:
            raise DataError(
                f"{item['case']}: a mask of {mask.shape} for plane {plane} of {item['image']}, "
                f"expected each plane once, in the shape {stack.classes.shape[1:]}"
            )
        stack.classes[plane], stack.came[plane] = mask, True
        if stack.came.all():
            restored = stack.view.restore(stack.classes)
            self._write(item, restored, stack.attributes)
            del self._stacks[name]

    def _write(self, item: Mapping[str, Any], mask: np.ndarray, like: Mapping[str, Any]) -> None:
        with self._record.listed(self._path(item), self._name(item)) as part:
            write_mask(mask, part, like)

    def _is_plane(self, item: Mapping[str, Any]) -> bool:
        return "plane" in item and item["image"] in self._volumes

    def _name(self, item: Mapping[str, Any]) -> str:
        return str(item["volume"] if self._is_plane(item) else item["case"])

    def _path(self, item: Mapping[str, Any]) -> Path:
        image = image_files(item)[0]
        default = f"{self._name(item)}{mask_suffix({'format': image_format(image)})}"
        *folders, name = item.get("mask", default).split("/")
        return self.folder.joinpath(*folders, shortened(name))


def let_go(engine: Engine) -> None:
    """Drop the last batch and its output, so that no two large images take memory."""
    engine.state.batch = engine.state.output = None
