"""Write the predicted mask of every case beside its name, and that of every volume in its shape."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from ignite.engine import Engine, Events
from monai.transforms import Compose
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError, Problem, listing
from metaseg_monai.evaluation.per_case import Case, PerCase
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.images.dicom_seg import (
    OWN_CODES,
    SUFFIX,
    MadeBy,
    SegmentCodes,
    require_highdicom,
    segmentation,
)
from metaseg_monai.images.geometry import AxialVolume
from metaseg_monai.images.image import image_format, image_suffix, row_blocks
from metaseg_monai.images.lazy import LazyTensor
from metaseg_monai.images.read import is_volume_file, read_header, volume_header
from metaseg_monai.images.write import mask_suffix, write_mask
from metaseg_monai.inferers.sliding import SlidingWindowMetadataInferer
from metaseg_monai.naming import shortened
from metaseg_monai.tables.check import image_files
from metaseg_monai.training.handlers import refuse_non_finite
from metaseg_monai.training.processes import hear_of_errors
from metaseg_monai.transforms.postprocessing import AsMaskd, probabilities_of

logger = logging.getLogger(__name__)
Form = Literal["mask", "dicom-seg"]


@dataclass
class _Stack:
    """A volume's mask in the making: classes (D, H, W), maybe probabilities, which planes came."""

    view: AxialVolume
    attributes: dict[str, Any]
    classes: np.ndarray
    came: np.ndarray
    probabilities: np.ndarray | None = None  # (K, D, H, W)

    def missing(self) -> str:
        planes = np.flatnonzero(~self.came).tolist()
        return f"{len(planes)} of {len(self.came)} planes ({listing(planes, 10, str)})"


class SaveMasks:
    """Evaluator handler: one mask of class numbers for each case, in the format of its image.

    A NIfTI mask has the affine of its image. The slices of a volume become one mask with the
    shape, affine and axes of the volume's file, written when all its planes came; one byte a voxel
    is held until then. Where the batch has `native_shape` (B, 2), logits are resized to it first.
    Each file is written whole or not at all. Before the next batch is read, the engine's last batch
    and output are let go: of large images no two then take memory. A mask is written in a thread of
    its own while the network runs on; the next one waits for it, so that no more than one mask is
    held beside the one in the making. Masks of large images that lie in a file are waited for.

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
        problems: gets the volumes whose planes did not all come, and images whose files have gone,
            in the place of an error.
        inferer: of the windows, which is told to give classes where `postprocessing` begins with
            `AsMaskd` and nothing is resized: they take a byte a pixel, logits four for each class.
        form: "mask", or "dicom-seg": a DICOM Segmentation of each series, see
            `metaseg_monai.images.dicom_seg.segmentation`; images that are no series are left out.
        segments: codes of the classes by name, see `SegmentCodes`; of that form only.
        probabilities: also write ``<mask>_probabilities.npz`` for each mask: `probabilities`,
            float16 (K, *S) in the axes of the mask. They are those before any threshold and
            clean-up. Two bytes a voxel and class are held.

    Attributes:
        home: folder that one process owns while it writes.
        paths: file of the mask of each case and volume, known when the run starts.
    """

    def __init__(
        self,
        folder: str | Path,
        postprocessing: Sequence[Callable[[Any], Any]] | None = None,
        record: MaskRecord | None = None,
        problems: list[Problem] | None = None,
        inferer: SlidingWindowMetadataInferer | None = None,
        probabilities: bool = False,
        form: Form = "mask",
        segments: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> None:
        if form not in get_args(Form):
            raise ConfigError(f"masks are written as {', '.join(get_args(Form))}, not {form!r}")
        self.codes = SegmentCodes(segments) if form == "dicom-seg" else None
        self.probabilities = probabilities
        self.folder = Path(folder)
        self.problems = problems
        self.inferer = inferer
        self.postprocessing = Compose([AsMaskd()] if postprocessing is None else postprocessing)
        self.paths: dict[str, Path] = {}
        self._items: dict[str, Mapping[str, Any]] = {}
        self._volumes: set[str] = set()
        self._stacks: dict[str, _Stack] = {}
        self._record = MaskRecord(folder) if record is None else record
        self.home = self._record.home
        self._left_out: set[str] = set()
        self._writer = _Writer()

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
        if not isinstance(as_mask, AsMaskd) or "native_shape" in batch or self.probabilities:
            return

        def classes(logits: Tensor) -> Tensor:
            refuse_non_finite(logits, batch["image"], engine.state)
            return as_mask.classes(logits, getattr(engine.state, "shift", 0.0))

        inferer.reduce = classes

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn which files must not be written, and which cases are planes of volumes."""
        self._items = {item["case"]: item for item in items}
        sliced = [item["image"] for item in items if "plane" in item]
        files = {file for file in sliced if isinstance(file, str)}
        self._volumes = {file for file in files if is_volume_file(file)}
        self._stacks = {}
        if self.codes is not None:
            require_highdicom()
            self._leave_out_of_segmentations(items)
            self._tell_codes(self.codes)
        items = [item for item in items if self._name(item) not in self._left_out]
        self.paths = {self._name(item): self._path(item) for item in items}
        beside = [soft_path(path) for path in self.paths.values()] if self.probabilities else []
        self._record.claim(self.paths, items, beside=beside)

    def _leave_out_of_segmentations(self, items: Sequence[Mapping[str, Any]]) -> None:
        """List the images that are no DICOM series, of which there is no segmentation."""
        self._left_out = set()
        for item in items:
            name, image = self._name(item), image_files(item)[0]
            if name not in self._left_out and image_format(image) != "dicom":
                error = DataError(
                    f"{image}: is no DICOM series, of which a segmentation could be made; leave "
                    "--prediction_form out for its mask"
                )
                if self.problems is None:
                    raise error
                self._left_out.add(name)
                self.problems.append(Problem.of_error(name, str(image), image, error))

    def __call__(self, case: Case) -> tuple[()]:
        """Write the mask of a case, or put it as a plane into its volume."""
        item = self._items[case["case"]]
        if self._name(item) in self._left_out:
            return ()
        self._record.saw(self._name(item), case)
        mask = self._mask(case)
        plain = {**case, "pred": case.get("plain", case["pred"])}  # before any clean-up
        soft = probabilities_of(plain) if self.probabilities else None
        if self._is_plane(item):
            self._put(item, np.asarray(mask), soft)
            return ()
        turned = mask.ndim == 3 and "native_shape" in case  # by AxialVolumed
        try:
            view, attributes = volume_header(item["image"]) if turned else (None, {})
            attributes = attributes or read_header(item["image"])
        except DataError as error:  # the file has gone since it was loaded
            if self.problems is None:
                raise
            file = str(item["image"])
            self.problems.append(Problem.of_error(item["case"], file, file, error))
            return ()
        if view is not None:
            mask = view.restore(np.moveaxis(mask, -1, 0))
            soft = _restored(view, None if soft is None else np.moveaxis(soft, -1, 1))
        self._write(item, mask, attributes, soft)
        return ()

    def _mask(self, case: Case) -> Any:
        """The mask (*S) of a case; classes of a large image stay where they lie."""
        pred, made = case["pred"], self.postprocessing.transforms
        alone = len(made) == 1 and isinstance(made[0], AsMaskd)
        if alone and isinstance(pred, LazyTensor) and not pred.is_floating_point():
            return pred[0].cpu()
        return np.asarray(self.postprocessing(dict(case))["pred"][0])

    def write(self, path: Path, found: list[Any]) -> list[Path]:
        """Refuse to end while planes of a volume are missing.

        Raises:
            DataError: names the volumes and their planes; they have no mask.
        """
        unfinished = self._unfinished()
        try:
            self._writer.settle()
        finally:
            self._writer.end()
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
        self._writer.end()
        if unfinished := self._unfinished():
            engine.logger.warning(f"No mask was written where planes miss: {unfinished}.")
        self._stacks = {}

    def _unfinished(self) -> str:
        return "; ".join(
            f"{name}: {stack.missing()}"
            for name, stack in self._stacks.items()
            if not stack.came.all()
        )

    def _put(self, item: Mapping[str, Any], mask: np.ndarray, soft: np.ndarray | None) -> None:
        """Put one plane into its volume, and write the volume when it was the last."""
        name = self._name(item)
        if name not in self._stacks:
            view, attributes = volume_header(item["image"], item.get("axis", "axial"))
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
        if soft is not None:
            if stack.probabilities is None:
                stack.probabilities = np.zeros((len(soft), *stack.classes.shape), np.float16)
            stack.probabilities[:, plane] = soft
        if stack.came.all():
            restored = stack.view.restore(stack.classes)
            self._write(
                item, restored, stack.attributes, _restored(stack.view, stack.probabilities)
            )
            del self._stacks[name]

    def _write(
        self,
        item: Mapping[str, Any],
        mask: Any,
        like: Mapping[str, Any],
        soft: np.ndarray | None,
    ) -> None:
        self._writer.put(lambda: self._write_now(item, mask, like, soft))
        if isinstance(mask, LazyTensor):
            self._writer.settle()

    def _write_now(
        self,
        item: Mapping[str, Any],
        mask: Any,
        like: Mapping[str, Any],
        soft: np.ndarray | None,
    ) -> None:
        beside = [] if soft is None else [soft_path(self._path(item))]
        if not any(np.asarray(mask[rows]).any() for rows in row_blocks((1, *mask.shape))):
            self._record.note(self._name(item), empty=True)
        made: Any = None
        if self.codes is not None:
            try:
                made = self._segmentation(mask, like["path"], self.codes)
            except DataError as error:  # the series lacks what the object must tell
                if self.problems is None:
                    raise
                file = like["path"]
                self.problems.append(Problem.of_error(self._name(item), file, file, error))
                return
        if soft is not None:  # before the mask, by which a later prediction knows that it is done
            with self._record.listed(beside[0]) as part, part.open("wb") as file:
                np.savez_compressed(file, probabilities=soft.astype(np.float16))
        with self._record.listed(self._path(item), self._name(item), beside=beside) as part:
            if made is None:
                write_mask(mask, part, like)
            else:
                made.save_as(part)

    def _segmentation(self, mask: Any, series: str, codes: SegmentCodes) -> Any:
        """The DICOM Segmentation of a mask, which names what made it."""
        told, names = self._known()
        network = told.get("network") or {}
        kind = str(network.get("_target_", "network")).rpartition(".")[2]
        made_by = MadeBy(
            f"{kind} {told.get('variant', '')}".strip(), told.get("weights_sha256", "")
        )
        return segmentation(np.asarray(mask), series, names, codes, made_by)

    def _known(self) -> tuple[Mapping[str, Any], dict[int, str]]:
        """The facts of the weights, and the names of the classes above 0."""
        weights = self._record.weights
        told = {} if weights is None else weights.recorded
        names = {int(key): str(name) for key, name in (told.get("class_names") or {}).items()}
        return told, {number: name for number, name in names.items() if number > 0}

    def _tell_codes(self, codes: SegmentCodes) -> None:
        """Tell of classes and codes that do not meet, so that no slip of a name stays unseen."""
        names = self._known()[1].values()
        if strange := sorted(codes.codes.keys() - set(names)):
            logger.warning(
                "segments: codes of %s, but the model's classes are %s; they are left out",
                *(listing(strange), listing(names) or "not named"),
            )
        if bare := sorted(set(names) - codes.codes.keys()):
            logger.warning(
                "segments: no codes of %s, which are written in the private scheme %s; give "
                '--segments \'{"%s": {"type": [value, scheme, meaning]}}\'',
                *(listing(bare), OWN_CODES, bare[0]),
            )

    def _is_plane(self, item: Mapping[str, Any]) -> bool:
        return "plane" in item and item["image"] in self._volumes

    def _name(self, item: Mapping[str, Any]) -> str:
        return str(item["volume"] if self._is_plane(item) else item["case"])

    def _path(self, item: Mapping[str, Any]) -> Path:
        image = image_files(item)[0]
        default = f"{self._name(item)}{mask_suffix({'format': image_format(image)})}"
        *folders, name = item.get("mask", default).split("/")
        if self.codes is not None:
            name = name[: len(name) - len(image_suffix(name))] + SUFFIX
        return self.folder.joinpath(*folders, shortened(name))


class _Writer:
    """A thread that writes one thing after the other, while others are made."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def put(self, write: Callable[[], None]) -> None:
        """Wait for what is being written; then write this.

        Raises:
            Exception: whatever the last one raised.
        """
        self.settle()
        self._pool = self._pool or ThreadPoolExecutor(1, "write")
        self._last = self._pool.submit(write)

    def settle(self) -> None:
        """Wait for what is being written; raise what the writing raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def end(self) -> None:
        """Wait for what is being written, whatever comes of it, and end the thread."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()


def soft_path(mask: Path) -> Path:
    """Where the probabilities of a mask are written.

    >>> soft_path(Path("masks/a.nii.gz")).as_posix()
    'masks/a_probabilities.npz'
    """
    stem = mask.name[: len(mask.name) - len(image_suffix(mask.name))]
    return mask.with_name(shortened(f"{stem}_probabilities.npz"))


def _restored(view: AxialVolume, soft: np.ndarray | None) -> np.ndarray | None:
    """Probabilities (K, D, H, W) in the stored order of axes."""
    return None if soft is None else np.stack([view.restore(one) for one in soft])


def let_go(engine: Engine) -> None:
    """Drop the last batch and its output, so that no two large images take memory."""
    engine.state.batch = engine.state.output = None
