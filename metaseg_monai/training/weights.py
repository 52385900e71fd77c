"""Which weights of a run are kept, and for which network they may be used."""

import csv
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from metaseg_monai.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MetadataError,
    TrainingError,
)
from metaseg_monai.files import file_sha256
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.cases import image_files
from metaseg_monai.training import processes
from metaseg_monai.training.checkpoints import (
    differences,
    read_checkpoint,
    replace_file,
    write_checkpoint,
)
from metaseg_monai.training.handlers import higher_is_better, lower_is_better


class BestWeights:
    """Write the network's weights whenever the validation metric is the best so far.

    Attach it to the validation evaluator. NaN is never best, also not as the first value. Put it
    among the objects of `RunCheckpoint`, so that a resumed run knows what the best was.

    Args:
        path: the file, e.g. `models/model.pt`. It holds "model" (the state_dict), "variant",
            "schema" (JSON text or None), "settings", "metric" (its name), "value" and "epoch".
        network: also inside DistributedDataParallel.
        variant: the network's variant, checked when the weights are loaded.
        schema: of its metadata, checked likewise; None where there is none.
        settings: plain values that `LoadWeights` can ask for again.
        metric: name among the evaluator's metrics (contract 15: the validation loss).
        mode: "min" where lower is better, "max" where higher is.

    Raises:
        ConfigError: `mode` is neither.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        variant: str,
        schema: MetadataSchema | None = None,
        settings: Mapping[str, Any] | None = None,
        metric: str = "val_loss",
        mode: str = "min",
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"mode must be min or max, got {mode!r}.")
        self.path = Path(path)
        self.network = network
        self.variant = variant
        self.schema = schema
        self.settings = dict(settings or {})
        self.metric = metric
        self.is_better = lower_is_better if mode == "min" else higher_is_better
        self.best_value = math.nan
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Attach to the validation evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the metric and write the weights where it improved.

        Raises:
            TrainingError: The evaluator has no such metric.
            CheckpointError: The file cannot be written; the former best is intact.
        """
        if self.metric not in engine.state.metrics:
            raise TrainingError(
                f"The best weights go by {self.metric!r}, which the validation does not compute; "
                f"it has {sorted(engine.state.metrics)}. Name one of these."
            )
        value = float(engine.state.metrics[self.metric])
        if not self.is_better(value, self.best_value):
            return
        self.best_value, self.best_epoch = value, int(engine.state.epoch)
        if processes.rank() != 0:
            return
        content = {
            "model": processes.bare_network(self.network).state_dict(),
            "variant": self.variant,
            "schema": None if self.schema is None else json.dumps(self.schema.to_dict()),
            "settings": self.settings,
            "metric": self.metric,
            "value": self.best_value,
            "epoch": self.best_epoch,
        }
        write_checkpoint(self.path, content)

    def start_anew(self) -> None:
        """Move the weights of an earlier run aside, so that they are not taken for this one's."""
        if self.path.is_file():
            self.path.replace(self.path.with_name(f"{self.path.stem}.previous{self.path.suffix}"))

    def require(self) -> None:
        """Refuse to end a training that left no weights.

        Raises:
            TrainingError: No validation has given a finite metric.
            CheckpointError: The weights that a finished run had kept are gone.
        """
        if not self.best_epoch:
            raise TrainingError(
                f"No weights were kept at {self.path}: no validation gave a finite {self.metric}. "
                "Validate at least once (val_interval not above epochs)."
            )
        if processes.rank() == 0 and not self.path.is_file():
            raise CheckpointError(
                f"The run is finished, but its weights {self.path} are gone; delete the checkpoint "
                "beside them to train anew."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and its epoch."""
        return {"value": self.best_value, "epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a best value and its epoch."""
        self.best_value, self.best_epoch = state["value"], state["epoch"]


class LoadWeights:
    """Load weights by `BestWeights` into a network they were trained for, and into no other.

    Attach it to the evaluator of an evaluation or inference; it loads when that starts.

    Args:
        path: the file.
        network: also inside DistributedDataParallel.
        schema: of the metadata this network will be given; None where there is none.
        variant: of this network.
        settings: plain values that must be those `BestWeights` stored (how images are scaled ...).
        bundle_root: folder of the bundle, whose training command is told where weights are missing.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        schema: MetadataSchema | None,
        variant: str,
        settings: Mapping[str, Any] | None = None,
        bundle_root: str | Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.schema = schema
        self.variant = variant
        self.settings = dict(settings or {})
        self.train = "Train them first"
        if bundle_root is not None:
            self.train += (
                f": python -m monai.bundle run training --config_file {bundle_root}/configs/"
                f"train.json --variant {variant} --output_dir {self.path.parent}"
            )

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, first of its handlers."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights when the engine starts; see `load`."""
        self.load()
        engine.logger.info(f"Weights are those of {self.path}.")

    def check(self) -> Mapping[str, Any]:
        """Refuse weights that are missing or of something else, before data are read or made.

        Returns:
            What the file holds.

        Raises:
            CheckpointError: The file is missing, damaged or no weights of ours, or belongs to
                another variant or schema; what differs is said.
        """
        if not self.path.is_file():
            raise CheckpointError(f"There are no weights at {self.path}. {self.train}")
        stored = read_checkpoint(self.path)
        if missing := [key for key in ("model", "variant", "schema") if key not in stored]:
            raise CheckpointError(
                f"{self.path} has no {', '.join(missing)}: it was not written by a training of "
                "this package, so what metadata it knows cannot be told."
            )
        found = {
            "variant": stored["variant"],
            "schema": self._settings_of(stored["schema"]),
            "settings": {key: stored.get("settings", {}).get(key) for key in self.settings},
        }
        wanted = {
            "variant": self.variant,
            "schema": None if self.schema is None else self.schema.settings,
            "settings": self.settings,
        }
        if lines := differences(found, wanted):
            raise CheckpointError(
                f"{self.path} was trained for something else: {'; '.join(lines)}. Use the "
                "settings it was trained with, or train anew into another folder"
            )
        return stored

    def load(self) -> None:
        """Load the weights.

        Raises:
            CheckpointError: As `check`, or they are of another architecture.
        """
        stored = self.check()
        try:
            processes.bare_network(self.network).load_state_dict(stored["model"])
        except RuntimeError as error:
            raise CheckpointError(
                f"The weights in {self.path} do not fit this network: {error} Set the network's "
                "sizes to those it was trained with."
            ) from error

    def _settings_of(self, text: str | None) -> list[dict[str, Any]] | None:
        if text is None:
            return None
        try:
            return MetadataSchema.from_dict(json.loads(text)).settings
        except (ValueError, MetadataError) as error:
            raise CheckpointError(
                f"The metadata schema in {self.path} cannot be read ({error}); train anew."
            ) from error


# Which images a network was trained on, so that it is tested on none of them.

NAME = "trained_on.csv"
COLUMNS = ("sha256", "split", "group", "case")
SHOWN = 5

logger = logging.getLogger(__name__)


class RecordTrained:
    """Write down beside the weights which images a training sees.

    Attach it to the trainer, behind `RunCheckpoint`, which may refuse to go on. It writes
    `trained_on.csv`, a row an image: the SHA-256 of its file (of several planes joined by ";"),
    its split (train, or val, which chose the weights), group and case.

    Args:
        weights: file of the weights, e.g. `models/model.pt`.
        items: the cases of these splits.
    """

    def __init__(self, weights: str | Path, items: Iterable[Mapping[str, Any]]) -> None:
        self.path = Path(weights).with_name(NAME)
        self.items = items

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file.

        Raises:
            DataError: An image cannot be read.
            CheckpointError: The file cannot be written.
        """
        if processes.rank() != 0:
            return
        of_image = {image_files(item): item for item in self.items}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image, item in of_image.items():
            writer.writerow([_digest(image), *(item[name] for name in COLUMNS[1:])])
        replace_file(self.path, text.getvalue().encode())


class RefuseTrained:
    """Refuse to test a network on images that it was trained on, or chosen by.

    Attach it to the evaluator. Cases of the splits train and val are let through: who tests on
    them means it. Another image of a group that has been trained on is told in the log: names of
    groups, such as 1, 2, 3, may coincide between data sets.

    Args:
        weights: file of the weights. Where `trained_on.csv` is missing beside it, as with weights
            from elsewhere, the log says that nothing is known.
        items: the cases to be tested.
    """

    def __init__(self, weights: str | Path, items: Iterable[Mapping[str, Any]]) -> None:
        self.path = Path(weights).with_name(NAME)
        self.items = items

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the images.

        Raises:
            DataError: Some were trained on, or the file is damaged, or an image cannot be read.
        """
        tested = {image_files(item): item for item in self.items if item.get("split") == "test"}
        if not tested:
            return
        if not self.path.is_file():
            logger.warning(
                "%s: missing, so nobody knows whether the test cases were trained on", self.path
            )
            return
        known = self._read()
        of_content = {row["sha256"]: row for row in known}
        twice = {
            str(item["case"]): of_content[digest]
            for image, item in tested.items()
            if (digest := _digest(image)) in of_content
        }
        if twice:
            shown = [
                f"{case} (was {row['split']} case {row['case']})" for case, row in twice.items()
            ]
            more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
            raise DataError(
                f"{len(twice)} of {len(tested)} test images were in the training of these "
                f"weights ({self.path}): {', '.join(shown[:SHOWN])}{more}. The table was probably "
                "split anew since; test with the table of the training, or train anew"
            )
        groups = sorted({row["group"] for row in known} & {i["group"] for i in tested.values()})
        if groups:
            logger.warning(
                "%d groups of the test cases have the name of one that was trained on (%s): if it "
                "is the same patient or well, these are no unseen cases",
                len(groups),
                ", ".join(groups[:SHOWN]),
            )

    def _read(self) -> list[dict[str, str]]:
        rows = list(csv.DictReader(io.StringIO(self.path.read_text(encoding="utf-8"))))
        if not rows or set(rows[0]) != set(COLUMNS):
            raise DataError(
                f"{self.path}: damaged, expected the columns {', '.join(COLUMNS)}; train anew, or "
                "remove the file to test without knowing what was trained on"
            )
        return rows


def _digest(files: tuple[str, ...]) -> str:
    try:
        return ";".join(map(file_sha256, files))
    except OSError as error:
        raise DataError(
            f"{files[0]}: cannot be read ({error}); copy it anew, or mend the table"
        ) from error
