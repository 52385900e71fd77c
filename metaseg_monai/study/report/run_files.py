"""What a run says of its cases beside the counts: spacing, raw metadata, schema, volumes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_monai.blocks import METADATA_VARIANTS
from metaseg_monai.bundle.locate import resolve_bundle
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.cases import CLASSES, read_cases
from metaseg_monai.evaluation.volume_scores import read_volumes
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.metadata.kinds import AnyField
from metaseg_monai.metadata.quantities import read_number
from metaseg_monai.study.results import Replicate, Result, Results

CASES, SCHEMA, VOLUMES = "cases.csv", "schema.json", "volumes.csv"


def class_names(results: Results) -> dict[int, str]:
    """Names of the label's foreground classes; empty if unknown.

    The study's bundle gives them in its ``configs/metadata.json``, under
    network_data_format.outputs.pred.channel_def; single runs in their ``classes.json``.
    """
    try:
        if results.study is None:
            content = _read_json(results.first.folder / CLASSES)
        else:
            file = resolve_bundle(results.study.bundle) / "configs" / "metadata.json"
            content = _read_json(file)["network_data_format"]["outputs"]["pred"]["channel_def"]
        named = {int(number): str(name) for number, name in content.items()}
    except (ConfigError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # a report is made where the bundle is not, or gives no names
    return {number: name for number, name in named.items() if number > 0 and name.strip()}


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def class_text(names: Mapping[int, str], number: int) -> str:
    """How a class is told of.

    >>> class_text({2: "tumour"}, 2), class_text({}, 2)
    ('tumour', 'class 2')
    """
    return names.get(int(number), f"class {number}")


def reads_metadata(results: Results, name: str) -> bool:
    """Tell whether a condition is given metadata: by its variant, or by the modes it was tested in.

    A dummy is given zeros, which is none.
    """
    modes = {m for result in results.conditions[name].values() for m in result.counts["mode"]}
    own = {} if results.study is None else results.study.conditions.get(name, {})
    return modes != {"normal"} or own.get("variant", name) in METADATA_VARIANTS


def cases_of(result: Result, key: Replicate) -> pd.DataFrame | None:
    """The cases of a result, named as in its counts; None where the run wrote none.

    Volumes are named as in its scores of volumes: a case that is a whole volume by itself.

    Raises:
        DataError: the file is damaged, has a case twice, or lacks one that was counted.
    """
    path = result.folder / CASES
    if not path.is_file():
        return None
    cases = read_cases(path)
    if are_volumes(cases).any():
        cases["volume"] = cases["volume"].where(cases["plane"] != "", cases["case"])
    prefix = f"data{key.data_seed}/"  # the results name the cases of other data so
    if result.counts["case"].str.startswith(prefix).all():
        for column in ("case", "volume"):
            cases[column] = prefix + cases[column]
    twice = cases["case"][cases["case"].duplicated()]
    if not twice.empty:
        raise DataError(f"{path}: case {twice.iloc[0]} stands twice; name cases uniquely.")
    strangers = set(result.counts["case"]) - set(cases["case"])
    if strangers:
        raise DataError(
            f"{path} lacks case {min(strangers)} of counts.csv beside it; evaluate again."
        )
    return cases


class PixelSizes(NamedTuple):
    """Area of a pixel in mm2, or of a voxel its volume in mm3, by counted case.

    ``dims``: 2 where a case is an image, 3 where it is a volume.
    """

    of_case: pd.Series
    dims: int


def pixel_sizes(cases: pd.DataFrame | None, counts: pd.DataFrame) -> PixelSizes | None:
    """What the counted pixels measure; None where it is unknown of any, or images and volumes."""
    if cases is None:
        return None
    counted = cases.set_index("case").loc[counts["case"].unique()]
    areas: pd.Series = counted["spacing_y_mm"] * counted["spacing_x_mm"]
    whole = are_volumes(counted)
    if areas.isna().any() or whole.nunique() > 1:
        return None
    if whole.all():
        return PixelSizes(areas * counted["spacing_z_mm"], 3)
    return PixelSizes(areas, 2)


def are_volumes(cases: pd.DataFrame) -> pd.Series:
    """Tell which evaluated cases are whole volumes: their planes have a distance, but no place."""
    return (cases["plane"] == "") & cases["spacing_z_mm"].notna()


def fields_of(results: Results) -> dict[str, AnyField]:
    """The metadata fields of all runs that wrote their schema, by name; those of the first count.

    Raises:
        MetadataError: a schema.json is damaged.
    """
    fields: dict[str, AnyField] = {}
    for by_seed in results.conditions.values():
        path = next(iter(by_seed.values())).folder / SCHEMA
        if path.is_file():
            for field in MetadataSchema.load(path).fields:
                fields.setdefault(field.name, field)
    return fields


def continuous_fields(results: Results) -> dict[str, Continuous]:
    """The fields that are quantities, by name."""
    return {n: field for n, field in fields_of(results).items() if isinstance(field, Continuous)}


class Given(NamedTuple):
    """Values of a field that conditions have in common, with all cases that any of them knows."""

    conditions: list[str]
    cases: pd.DataFrame


def given_values(results: Results, field: str, names: Sequence[str] | None = None) -> list[Given]:
    """What conditions were given as a field: each distinct set of values once.

    Args:
        results: of the study.
        field: name of a field.
        names: conditions asked; None for all. Those whose runs tell no such field are left out.

    Returns:
        The set of the most conditions first, of those with the same number the earlier one; sets
        without any value last. Two conditions share a set where the cases of both agree.
    """
    sets: list[Given] = []
    for name in results.conditions if names is None else names:
        tables = [cases_of(result, key) for key, result in results.conditions[name].items()]
        told = [table for table in tables if table is not None and field in table]
        if not told:
            continue
        cases = pd.concat(told, ignore_index=True).drop_duplicates("case", ignore_index=True)
        for place, one in enumerate(sets):
            if _agree(one.cases, cases, field):
                joined = pd.concat([one.cases, cases], ignore_index=True)
                joined = joined.drop_duplicates("case", ignore_index=True)
                sets[place] = Given([*one.conditions, name], joined)
                break
        else:
            sets.append(Given([name], cases))
    return sorted(sets, key=lambda one: ((one.cases[field] == "").all(), -len(one.conditions)))


def other_values(sets: Sequence[Given], field: str) -> str:
    """Say which conditions were given other values than most; empty where all had the same.

    >>> empty = pd.DataFrame()
    >>> other_values([Given(["se", "me"], empty), Given(["me-unrelated"], empty)], "size")
    'me-unrelated was given other values of size than se and me.'
    """
    return " ".join(
        f"{listed(one.conditions)} {'was' if len(one.conditions) == 1 else 'were'} given other "
        f"values of {field} than {listed(sets[0].conditions)}."
        for one in sets[1:]
    )


def listed(names: Sequence[str]) -> str:
    """Write names one after the other.

    >>> listed(["se", "me", "sme"])
    'se, me and sme'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _agree(first: pd.DataFrame, second: pd.DataFrame, field: str) -> bool:
    """Tell whether the cases that both tables have, have the same values; 40 and 40.0 are."""
    one, other = (table.set_index("case")[field] for table in (first, second))
    shared = one.index.intersection(other.index)
    return [_plain(value) for value in one[shared]] == [_plain(value) for value in other[shared]]


def _plain(value: str) -> float | str:
    number = read_number(value)
    return value if number is None else number


def volumes_of(result: Result, key: Replicate) -> pd.DataFrame | None:
    """The scores of a result's volumes, named as its cases; None where the run wrote none.

    None as well for experts: which of them is the one for a volume is not known.
    """
    path = result.folder / VOLUMES
    if len(result.folders) > 1 or not path.is_file():
        return None
    volumes = read_volumes(path)
    prefix = f"data{key.data_seed}/"
    if result.counts["case"].str.startswith(prefix).all():
        volumes["volume"] = prefix + volumes["volume"]
    return volumes
