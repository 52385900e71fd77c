"""Which images a network was trained on, so that it is tested on none of them."""

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from metaseg_monai.data.cases import image_files
from metaseg_monai.engines import processes
from metaseg_monai.engines.checkpoints import replace_file
from metaseg_monai.errors import DataError
from metaseg_monai.files import file_sha256

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
