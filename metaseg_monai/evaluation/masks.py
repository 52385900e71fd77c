"""Write the predicted mask of every case beside its name."""

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from metaseg_monai.data import mask_suffix, read_image, write_mask
from metaseg_monai.errors import DataError


class SaveMasks:
    """Evaluator handler: one mask of class numbers for each case, in the format of its image.

    A NIfTI mask has the affine of its image. Each file is written whole or not at all.

    Raises:
        DataError: if a mask would replace an image of the same run.

    Args:
        folder: where the masks go, named by their cases.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.inputs: set[Path] = set()

    def attach(self, engine: Engine) -> None:
        """Write after every batch."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Learn which files must not be written."""
        self.inputs = _input_files(engine)

    def __call__(self, engine: Engine) -> None:
        """Write the masks of one batch."""
        batch, preds = engine.state.batch, engine.state.output["pred"].argmax(1)
        for case, file, pred in zip(batch["case"], batch["file"], preds, strict=True):
            like = read_image(file).attributes
            mask = pred.cpu().numpy().astype(np.uint16)
            path = self.folder / f"{case}{mask_suffix(like)}"
            if path.resolve() in self.inputs:
                raise DataError(
                    f"The mask of {case!r} would replace the image {path}; choose another output."
                )
            write_mask(path, mask, like)


def _input_files(engine: Any) -> set[Path]:
    """Every image file that the run reads."""
    images = [item["image"] for item in engine.data_loader.dataset.data]
    paths = [path for image in images for path in ([image] if isinstance(image, str) else image)]
    return {Path(path).resolve() for path in paths}
