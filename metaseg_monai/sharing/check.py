"""The deep check of a table as one text for a person, and a training tried without training."""

import tempfile
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from metaseg_monai.errors import ConfigError, MetasegError, root_refusal
from metaseg_monai.images.image import Channels, Meaning
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.check import TableCheck, Target, check_table
from metaseg_monai.tables.columns import as_column_map
from metaseg_monai.tables.table import refuse


def check(
    table: str | Path,
    schema_file: str | Path,
    columns_file: str | Path | None = None,
    classes: int = 2,
    channel_conversion: Channels = "stored",
    out_of_range: Literal["error", "flag"] | None = None,
    mask_values: Meaning | None = None,
    target: Target = "mask",
    bundle: str | Path | None = None,
    configuration: Any = None,
    *,
    bundles: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> str:
    """Read every file of a table and report all problems before any training.

    With a bundle, its training is tried with your settings, up to the first step: every case goes
    through its transforms, the smallest batch through its network.

    Example:
        python -m metaseg_monai check shapes/table.csv --schema_file schema.json
        python -m metaseg_monai check shapes/table.csv --schema_file schema.json \
--bundle synthetic_shapes_segmentation --roi_size "[32,32]" --batch_size 4

    Args:
        table: table.csv or the folder that holds it.
        schema_file: JSON file of the metadata fields.
        columns_file: JSON file of a column map, for tables with other column names.
        classes: number of label classes with the background; with a bundle, by default its own.
        channel_conversion: stored | grey | rgb, as in training; with a bundle its own.
        out_of_range: error | flag, instead of what the schema says, as in training: flag uses
            numbers as they are, and takes names that a field has not as unknown, where it may be.
        mask_values: stored | shown, which of both counts where a mask's numbers and what a viewer
            shows of them disagree, as in training; stored for Boolean masks of tifffile.
        target: mask | image, what labels are; image for those that are to be predicted, such as
            fluorescence; with a bundle its own.
        bundle: name or folder of the bundle that is to be trained.
        configuration: further configurations of the bundle, as for train.
        bundles: folder in which a bundle's name is looked for, as for train.
        trust: as for train.
        settings: of the training, such as --batch_size 4 (with a bundle).

    Returns:
        A summary, and the warnings.

    Raises:
        DataError: listing the problems, if there are any.
        ConfigError: a setting is none, or there is no bundle to set it in.
    """
    schema = MetadataSchema.load(schema_file, out_of_range)
    if bundle is None:
        if settings or configuration is not None:
            names = ", ".join(f"--{name}" for name in settings) or "--configuration"
            raise ConfigError(f"{names}: set in a training; name its bundle (--bundle NAME)")
        columns = as_column_map(columns_file, mask_values)
        found = check_table(table, schema, columns, classes, channel_conversion, target=target)
    else:
        given = {"dataset_dir": str(table), "schema_file": str(schema_file), **settings}
        given |= {} if columns_file is None else {"columns_file": str(columns_file)}
        given |= {} if out_of_range is None else {"out_of_range": out_of_range}
        given |= {} if mask_values is None else {"mask_values": mask_values}
        given |= {} if classes == 2 else {"classes": classes}
        found = _try_training(bundle, bundles, configuration, given, schema, trust)
    lacking = [split for split in ("train", "val") if split not in found.splits]
    if len(lacking) == 1 and not found.problems:  # with neither it is a table for tests
        found.problems.append(
            f"no rows of the split {lacking[0]!r}, without which nothing is trained; name some so"
        )
    refuse(Path(table), found.problems)
    warnings = [f"warning: {text}" for text in found.warnings]
    tried = "; whether a training's crops and batches fit is tried with --bundle NAME"
    if bundle is not None:
        tried = f"; {bundle} can be trained on it with these settings"
    return "\n".join([found.summary, *warnings, f"no problems found{tried}"])


def _try_training(
    bundle: str | Path,
    bundles: str | Path | None,
    configuration: Any,
    given: dict[str, Any],
    schema: MetadataSchema,
    trust: bool,
) -> TableCheck:
    """Check a table as a bundle reads it; if it is right, do all that a training does before it."""
    from metaseg_monai.bundle.run import (
        configs_of,
        resolve_bundle,  # a table alone needs no training
        running,
    )
    from metaseg_monai.transforms.load import LoadCased

    root, names = resolve_bundle(bundle, bundles), configs_of("train", more=configuration)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(root, names, {**given, "output_dir": folder}, trust=trust, run=False) as workflow,
    ):
        parsed = workflow.parser.get_parsed_content
        steps = parsed("preprocessing")
        load = next((step for step in steps if isinstance(step, LoadCased)), LoadCased())
        size = "validate#dataloader#batch_size"
        several = size in workflow.parser and parsed(size) > 1
        how = load.classes, load.channels, load.spatial_dims, load.target, several
        given_values = "table#mask_values" in workflow.parser and parsed("table#mask_values")
        columns = as_column_map(parsed("columns_file"), given_values or None)
        found = check_table(given["dataset_dir"], schema, columns, *how)
        if not found.problems:
            found.problems.extend(_problems_of(parsed))
    return found


def _problems_of(parsed: Any) -> list[str]:
    from metaseg_monai.training.handlers import TryBatches

    problems: list[str] = []
    try:
        trainer, evaluator = parsed("train#trainer"), parsed("validate#evaluator")
        dataset = parsed("train#dataset")
        for index in tqdm(range(len(dataset)), desc="try", unit="case", disable=None):
            try:
                dataset[index]
            except MetasegError as error:
                problems.append(str(error))
        if not problems:
            TryBatches(evaluator)(trainer)
    except Exception as error:  # MONAI wraps what a component refuses
        cause = root_refusal(error)
        problems.append(str(cause or f"training would break: {type(error).__name__}: {error}"))
    return problems
