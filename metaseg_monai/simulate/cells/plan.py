"""Which images the data sets of the texts consist of, with the counts of thesis appendix A."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from metaseg_monai.errors import ConfigError
from metaseg_monai.simulate.cells.acquisition import Acquisition, draw_acquisition
from metaseg_monai.tables.columns import SPLITS

Counts = dict[str, dict[str, int]]  # value -> split -> images


def _table(**rows: tuple[int, int, int]) -> Counts:
    return {name: dict(zip(SPLITS, counts, strict=True)) for name, counts in rows.items()}


A1 = _table(
    HeLa=(293, 58, 81), MDCK=(292, 79, 61), A549=(286, 66, 80), HT1080=(284, 78, 70),
    HepG2=(283, 82, 67), MCF7=(290, 70, 72), NIH3T3=(288, 71, 73),
)  # fmt: skip
A2_AZ = _table(AZ=(628, 78, 78))
A3 = _table(**{"10": (843, 218, 230), "20": (862, 215, 233), "40": (872, 209, 206)})
A4 = _table(
    A549=(435, 97, 114), NIH3T3=(437, 124, 123), HeLa=(446, 106, 117), HepG2=(409, 116, 107),
    HT1080=(429, 86, 98), MCF7=(421, 113, 110),
)  # fmt: skip
A5_CRACK = _table(CRACK=(333, 56, 56))
A7_ANOMALIES = dict(zip(SPLITS, (194, 70, 101), strict=True))
IMBALANCED = {"5": 0.20, "10": 0.30, "20": 0.01, "40": 0.49}  # proposal, section 3.2
COMMON_MAGNIFICATION = 20.0
STYLES = ("exact", "fine", "coarse")
NUCLEI, ANOMALIES, CRACKS = "nuclei", "anomalies", "cracks"
CRACK = "CRACK"  # the line of concrete


@dataclass(frozen=True)
class Plan:
    """One image to be made.

    Attributes:
        split: train, val or test.
        line: cell line, or "CRACK" for concrete.
        magnification: of the objective.
        tasks: of which the image has a label each.
        style: in which the label is drawn.
        source: collection that the image stands for.
    """

    split: str
    line: str
    magnification: float = COMMON_MAGNIFICATION
    tasks: tuple[str, ...] = (NUCLEI,)
    style: str = STYLES[0]
    source: str = "7LINES"


Totals = Mapping[str, int | None]  # images of a split; None for the texts' own number


def make_plan(recipe: str, totals: Totals, seed: int) -> list[Plan]:
    """The images of a data set, split by split, in random order.

    Raises:
        ConfigError: no image at all.
    """
    plans = []
    for stream, split in enumerate(SPLITS):
        random = np.random.default_rng([seed, 7, stream])
        made = RECIPES[recipe](split, totals[split], random)
        plans += [made[place] for place in random.permutation(len(made))]
    if not plans:
        raise ConfigError("train, val and test are all 0; ask for at least one image")
    return plans


def divided(counts: Counts, split: str, total: int | None) -> dict[str, int]:
    """Share `total` images among the values as the texts do (largest remainder).

    >>> divided({"a": {"train": 60}, "b": {"train": 30}}, "train", 4)
    {'a': 3, 'b': 1}
    """
    own = {name: of_split[split] for name, of_split in counts.items()}
    if total is None:
        return own
    exact = {name: total * count / sum(own.values()) for name, count in own.items()}
    shared = {name: int(count) for name, count in exact.items()}
    rest = sorted(exact, key=lambda name: shared[name] - exact[name])
    for name in rest[: total - sum(shared.values())]:
        shared[name] += 1
    return shared


def _of_lines(
    counts: Counts, split: str, total: int | None, random: np.random.Generator | None = None
) -> list[Plan]:
    """A recipe that leaves nothing to chance: images of lines, of concrete with cracks as task."""
    return [
        Plan(
            split,
            line,
            tasks=(CRACKS if line == CRACK else NUCLEI,),
            source=line if line in (CRACK, "AZ") else "7LINES",
        )
        for line, count in divided(counts, split, total).items()
        for _ in range(count)
    ]


def _magnification(split: str, total: int | None, random: np.random.Generator) -> list[Plan]:
    """Thesis 4.3, tables A.3 and A.4, which give the margins: their pairing is by chance."""
    return _magnified(_of_lines(A4, split, total), divided(A3, split, total), random)


def _imbalanced(split: str, total: int | None, random: np.random.Generator) -> list[Plan]:
    """Proposal, section 3.2: training is imbalanced, validation and test are not."""
    plans = _of_lines(A1, split, total)
    parts = IMBALANCED if split == "train" else dict.fromkeys(IMBALANCED, 1.0)
    counts = {name: {split: round(1000 * part)} for name, part in parts.items()}
    return _magnified(plans, divided(counts, split, len(plans)), random)


def _magnified(
    plans: list[Plan], shared: dict[str, int], random: np.random.Generator
) -> list[Plan]:
    values = [float(name) for name, count in shared.items() for _ in range(count)]
    order = random.permutation(len(values))
    return [
        replace(plan, magnification=values[place]) for plan, place in zip(plans, order, strict=True)
    ]


def _styles(split: str, total: int | None, random: np.random.Generator) -> list[Plan]:
    """Paper 3.2: a third of the training masks in each style, all others exact."""
    plans = _of_lines(A1, split, total)
    if split != "train":
        return plans
    first = int(random.integers(len(STYLES)))  # lines lie in order, so each gets all styles
    return [
        replace(plan, style=STYLES[(number + first) % len(STYLES)])
        for number, plan in enumerate(plans)
    ]


def _anomalies(split: str, total: int | None, random: np.random.Generator) -> list[Plan]:
    """Thesis 4.7, table A.7: some of the images have a second label."""
    plans = _of_lines(A1, split, total)
    both = A7_ANOMALIES[split]
    if total is not None:
        own = sum(count[split] for count in A1.values())
        both = min(len(plans), max(1, round(both * total / own))) if plans else 0
    chosen = set(random.permutation(len(plans))[:both].tolist())
    return [
        replace(plan, tasks=(NUCLEI, ANOMALIES)) if number in chosen else plan
        for number, plan in enumerate(plans)
    ]


def _curtailed(split: str, total: int | None, random: np.random.Generator) -> list[Plan]:
    """Table A.8: training and validation images all have both labels; the test is whole."""
    if split == "test":
        return _anomalies(split, total, random)
    number = A7_ANOMALIES[split] if total is None else total
    return [replace(plan, tasks=(NUCLEI, ANOMALIES)) for plan in _of_lines(A1, split, number)]


def _curtailed_apart(split: str, total: int | None, random: np.random.Generator) -> list[Plan]:
    """Thesis 4.7, last part: as many images of each task, but none has both."""
    if split == "test":
        return _anomalies(split, total, random)
    both = 2 * A7_ANOMALIES[split] if total is None else total
    return [
        replace(plan, tasks=(task,))
        for task, number in ((NUCLEI, both - both // 2), (ANOMALIES, both // 2))
        for plan in _of_lines(A1, split, number)
    ]


COUNTS_OF_RECIPE: dict[str, Counts] = {
    "two_lines": {line: A1[line] for line in ("HeLa", "MDCK")},  # thesis 4.1
    "extended": {**A1, **A2_AZ},  # thesis 4.4, table A.2
    "magnification": A4,
    "heterogeneous": {**A5_CRACK, "HeLa": A1["HeLa"], "HepG2": A1["HepG2"]},  # 4.5, table A.5
}  # the others have the seven lines
RECIPES: dict[str, Callable[[str, int | None, np.random.Generator], list[Plan]]] = {
    "seven_lines": partial(_of_lines, A1),
    "two_lines": partial(_of_lines, COUNTS_OF_RECIPE["two_lines"]),
    "extended": partial(_of_lines, COUNTS_OF_RECIPE["extended"]),
    "magnification": _magnification,
    "magnification_imbalanced": _imbalanced,
    "acquisition": _imbalanced,  # where all the rest varies as well, see `place_images`
    "heterogeneous": partial(_of_lines, COUNTS_OF_RECIPE["heterogeneous"]),
    "styles": _styles,
    "anomalies": _anomalies,
    "anomalies_curtailed": _curtailed,
    "anomalies_curtailed_apart": _curtailed_apart,
}


# Plates and wells: images of a well share their line and how they are taken.

WELLS_OF_PLATE = (4, 6)  # rows, columns


@dataclass(frozen=True)
class Place:
    """Where an image was taken.

    Attributes:
        plate: name; all wells of a plate are in one split.
        well: row letter and column number.
        field: number of the image in the well, from 1.
        acquisition: of the whole well.
        unrelated_line: line of another, unrelated well (null control).
    """

    plate: str
    well: str
    field: int
    acquisition: Acquisition
    unrelated_line: str


def place_images(
    plans: Sequence[Plan], fields_per_well: int, seed: int, recipe: str
) -> list[Place]:
    """Fill wells with the images of one line and magnification, in their order."""
    unrelated = tuple(COUNTS_OF_RECIPE.get(recipe, A1))  # of the null control
    filling: dict[tuple[str, str, float], tuple[int, int]] = {}  # to the well and its fields
    wells: dict[str, list[tuple[Acquisition, str]]] = {split: [] for split in SPLITS}
    places = []
    for plan in plans:
        split, key = plan.split, (plan.split, plan.line, plan.magnification)
        well, fields = filling.get(key, (0, fields_per_well))
        if fields == fields_per_well:
            well, fields = len(wells[split]), 0
            random = np.random.default_rng([seed, 8, SPLITS.index(split), well])
            taken = draw_acquisition(random, plan.magnification, recipe == "acquisition")
            wells[split].append((taken, str(random.choice(unrelated))))
        filling[key] = well, fields + 1
        plate, inside = divmod(well, WELLS_OF_PLATE[0] * WELLS_OF_PLATE[1])
        row, column = divmod(inside, WELLS_OF_PLATE[1])
        name = f"{'ABCDEFGH'[row]}{column + 1:02d}"
        places.append(Place(f"{split}{plate + 1:02d}", name, fields + 1, *wells[split][well]))
    return places
