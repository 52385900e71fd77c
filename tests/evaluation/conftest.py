"""An engine over given batches, volume files, and a tiny random network that makes their masks."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from metaseg_monai.evaluation import PerCase, SaveMasks
from metaseg_monai.images.geometry import slice_items
from metaseg_monai.tables.find import find_cases
from metaseg_monai.training import VolumeBatches, collate_cases
from metaseg_monai.transforms import LoadCased, ResampleToSpacingd, ScaleIntensityCased

SPACING = (4.0, 0.75, 0.625)  # exact in binary, so that no orientation rounds another way
CANONICAL = np.array(  # planes toward the feet, rows toward the back, columns toward the left
    [[0, 0, -SPACING[2], 31], [0, -SPACING[1], 0, 17], [-SPACING[0], 0, 0, 200], [0, 0, 0, 1.0]]
)


class TinyNetwork(torch.nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(5)
        self.layer = torch.nn.Conv2d(1, classes, 3, padding=1)

    def forward(self, image):
        return self.layer(image)


class Loader(list):
    """Batches with the items they are made of, as a DataLoader has them."""

    def __init__(self, batches, items):
        super().__init__(batches)
        self.dataset = SimpleNamespace(data=items)


@pytest.fixture(scope="session")
def run():
    """Run a handler over pairs (batch, output of the evaluator)."""

    def run_handler(handler, pairs, items=()):
        def step(engine, pair):
            engine.state.batch, output = pair
            return output

        engine = Engine(step)
        handler.attach(engine)
        engine.run(Loader(pairs, items))
        return engine.state

    return run_handler


@pytest.fixture(scope="session")
def measured(run):
    """Measure pairs (batch, output of the evaluator) and return the path of what is written."""

    def measure_pairs(measure, path, pairs, items=()):
        run(PerCase(path, measure), pairs, items)
        return path

    return measure_pairs


@pytest.fixture(scope="session")
def one_hot():
    """Logits (K, *S) of classes (*S)."""

    def logits(classes, count=2):
        return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), count).movedim(-1, 0)

    return logits


@pytest.fixture(scope="session")
def phantom():
    def draw(shape=(3, 10, 12), seed=0):
        return np.random.default_rng(seed).integers(-200, 300, shape).astype(np.int16)

    return draw


@pytest.fixture(scope="session")
def save():
    """Store planes (D, H, W) with axes toward the given sides of the body."""

    def store(path, planes, codes=("I", "P", "L"), **codes_of_form):
        stored = io_orientation(CANONICAL)
        turn = ornt_transform(stored, axcodes2ornt(codes))
        array = apply_orientation(planes, turn)
        image = nib.Nifti1Image(array, CANONICAL @ inv_ornt_aff(turn, planes.shape))
        for form, code in codes_of_form.items():
            getattr(image, f"set_{form}")(image.affine, code=code)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return turn

    return store


@pytest.fixture(scope="session")
def predict():
    """Make an evaluator of the cases in a folder, and the handler that writes their masks."""

    def make(
        source,
        output,
        spacing_mm=None,
        batch_size=2,
        items=None,
        network=None,
        workers=0,
        load=None,
    ):
        items = slice_items(find_cases(source, None)) if items is None else items
        if load is None:
            scale = ScaleIntensityCased([-150, 250], clip=True)
            load = [LoadCased(), ResampleToSpacingd(spacing_mm), scale]
        chain = Compose([*load])
        loader = DataLoader(
            Dataset(items, chain),
            batch_sampler=VolumeBatches(items, batch_size),
            collate_fn=collate_cases,
            num_workers=workers,
        )
        save_masks = SaveMasks(output)
        engine = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=loader,
            network=network or TinyNetwork(),
            val_handlers=[save_masks],
            decollate=False,
        )
        engine.logger.propagate = True
        return engine, save_masks

    return make


@pytest.fixture(scope="session")
def classes_of():
    """The masks of planes (D, H, W), with nothing of what is tested here."""

    def classes(planes):
        scaled = (np.clip(planes, -150, 250).astype(np.float32) + 150) / 400
        with torch.no_grad():
            return TinyNetwork()(torch.from_numpy(scaled)[:, None]).argmax(1).numpy()

    return classes
