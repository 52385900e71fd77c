"""What a run says of its cases beside the counts: spacing, raw metadata, schema, volumes."""

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.cases import read_cases
from metaseg_monai.evaluation.volume_scores import read_volumes
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.metadata.kinds import AnyField
from metaseg_monai.study.results import Replicate, Result, Results

CASES, SCHEMA, VOLUMES = "cases.csv", "schema.json", "volumes.csv"


def cases_of(result: Result, key: Replicate) -> pd.DataFrame | None:
    """The cases of a result, named as in its counts; None where the run wrote none.

    Raises:
        DataError: the file is damaged, has a case twice, or lacks one that was counted.
    """
    path = result.folder / CASES
    if not path.is_file():
        return None
    cases = read_cases(path)
    prefix = f"data{key.data_seed}/"  # the results name the cases of other data so
    if result.counts["case"].str.startswith(prefix).all():
        cases["case"] = prefix + cases["case"]
    twice = cases["case"][cases["case"].duplicated()]
    if not twice.empty:
        raise DataError(f"{path}: case {twice.iloc[0]} stands twice; name cases uniquely.")
    strangers = set(result.counts["case"]) - set(cases["case"])
    if strangers:
        raise DataError(
            f"{path} lacks case {min(strangers)} of counts.csv beside it; evaluate again."
        )
    return cases


def pixel_areas(cases: pd.DataFrame | None, counts: pd.DataFrame) -> pd.Series | None:
    """Area of a pixel in mm2 by counted case; None where that of any is unknown."""
    if cases is None:
        return None
    counted = cases.set_index("case").loc[counts["case"].unique()]
    areas: pd.Series = counted["spacing_y_mm"] * counted["spacing_x_mm"]
    return None if areas.isna().any() else areas


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


def all_cases(results: Results) -> pd.DataFrame | None:
    """The cases of the first condition that wrote them, of all its data; None where none did."""
    for by_seed in results.conditions.values():
        tables = [cases_of(result, key) for key, result in by_seed.items()]
        told = [table for table in tables if table is not None]
        if told:
            return pd.concat(told, ignore_index=True).drop_duplicates("case", ignore_index=True)
    return None


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
