"""What the arguments of the commands ``study`` and ``demo`` mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError
from metaseg_monai.sharing.predict import names
from metaseg_monai.study.design import Study

VARIANTS = "none,se,me,sme,sme-dummy,film,film-dummy"


def make_study(
    target: str,
    variants: str | Sequence[str] | None,
    seeds: Any,
    overrides: Mapping[str, Any],
) -> Study:
    """Return the study that a command line describes.

    Args:
        target: JSON file of a study, or name or folder of a bundle.
        variants: conditions, comma-separated; only for a bundle.
        seeds: how many training seeds, or which ones; None for those of the file, or three.
        overrides: settings of the bundle for all runs; they win over those of the file.

    Raises:
        ConfigError: a wrong argument, or the file is no study.
    """
    target = str(target)
    if not target.endswith(".json"):
        return Study(
            name=Path(target).name.removesuffix("_segmentation").replace("_", " ").capitalize(),
            bundle=target,
            conditions=names(VARIANTS if variants is None else variants),
            seeds=_seeds(3 if seeds is None else seeds),
            settings=dict(overrides),
        )
    if variants is not None:
        raise ConfigError(f"{target} names its conditions itself; leave --variants out.")
    study = Study.load(target).model_dump()
    study["settings"] |= overrides
    if seeds is not None:
        study["seeds"] = _seeds(seeds)
    return Study(**study)


def _seeds(seeds: Any) -> list[int]:
    """Three is 0, 1, 2; a list is itself.

    >>> _seeds(2), _seeds("4,7"), _seeds((1, 2))
    ([0, 1], [4, 7], [1, 2])
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(seeds))
    try:
        return [int(seed) for seed in names(seeds)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--seeds {seeds}: give a number of seeds, or a list as 4,7.") from error
