"""Write the predicted mask of every case beside its name."""

from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events

from metaseg_monai.data import mask_suffix, read_image, write_mask
from metaseg_monai.errors import DataError


class SaveMasks:
    """Evaluator handler: one mask of class numbers for each case, in the format of its image.

    A NIfTI mask has the affine of its image. Each file is written whole or not at all.

    Raises:
        DataError: if a mask would replace its image.

    Args:
        folder: where the masks go, named by their cases.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        """Write after every batch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the masks of one batch."""
        batch, preds = engine.state.batch, engine.state.output["pred"].argmax(1)
        for case, file, pred in zip(batch["case"], batch["file"], preds, strict=True):
            like = read_image(file).attributes
            mask = pred.cpu().numpy().astype(np.uint16)
            path = self.folder / f"{case}{mask_suffix(like)}"
            if path.resolve() == Path(file).resolve():
                raise DataError(f"The mask of {case!r} would replace its image {file}.")
            write_mask(path, mask, like)
