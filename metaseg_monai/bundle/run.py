"""Run a bundle's workflow in this process, with checked overrides."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai.bundle import ConfigWorkflow

from metaseg_monai.bundle.locate import configuration_file, home_of
from metaseg_monai.bundle.overrides import check_overrides, flatten, load_config
from metaseg_monai.errors import MetasegError


def configs_of(*names: str, more: str | Sequence[str] | None = None) -> list[str]:
    """The files of a workflow, and further configurations merged last, in order.

    >>> configs_of("train", "evaluate", more="pilot")
    ['train.json', 'evaluate.json', 'pilot']
    """
    further = more.split(",") if isinstance(more, str) else list(more or [])
    return [*(f"{name}.json" for name in names), *(name.strip() for name in further)]


def run_bundle(
    bundle: Path, configurations: Sequence[str], overrides: Mapping[str, Any]
) -> ConfigWorkflow:
    """Initialize, run and finalize one workflow of a bundle, as ``monai.bundle run`` does.

    Args:
        bundle: folder of the bundle.
        configurations: merged in this order: names of the bundle's, paths of other files. What
            such a file changes is checked as overrides are.
        overrides: ``{id: value}``; paths must be absolute or relative to the working directory.

    Returns:
        The workflow that ran, whose parser gives its objects by id.

    Raises:
        ConfigError: for a file that is not there, or an override that nothing uses.
        MetasegError: whatever the library itself refuses, without the wrappers of MONAI.
    """
    files = [configuration_file(bundle, name) for name in configurations]
    infers = files[0].stem == "inference"
    trained_by = [bundle / "configs" / "train.json"] if infers else []  # may be what a file changes
    for place, file in enumerate(files):
        if file.parent != bundle / "configs":
            check_overrides([*trained_by, *files[:place]], load_config([file]))
    settings = {**_places(bundle, files), **check_overrides(files, overrides)}
    for engine in ("SupervisedTrainer", "SupervisedEvaluator"):
        logging.getLogger(f"ignite.engine.engine.{engine}").addFilter(_is_news)
    logging.getLogger("monai.bundle.workflows").addFilter(_is_news)
    with TemporaryDirectory() as folder:
        merged = Path(folder) / "merged.json"
        merged.write_text(json.dumps(load_config(files)), encoding="utf-8")
        workflow = ConfigWorkflow(
            config_file=[str(files[0]), *([str(merged)] if files[1:] else [])],
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=str(bundle / "configs" / "logging.conf"),
            workflow_type="infer" if infers else "train",
            **settings,
        )
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except Exception as error:
        cause = root_refusal(error)
        if cause is None:
            raise
        raise cause from error
    return workflow


def _places(bundle: Path, files: Sequence[Path]) -> dict[str, str]:
    """The bundle's folder, and where its data and results go where they may not go there."""
    places = {"bundle_root": str(bundle)}
    if (home := home_of(bundle)) != bundle:
        for name, value in flatten(load_config(files)):
            is_place = isinstance(value, str) and value.startswith("$@bundle_root + '/")
            if is_place and "/configs/" not in value:
                places[name] = value.replace("@bundle_root", repr(str(home)))
    return places


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what MONAI and Ignite say of files and errors that this package tells itself."""
    text = record.getMessage()
    return "terminating due to exception" not in text and "Not all config files are in" not in text


def root_refusal(error: BaseException | None) -> MetasegError | None:
    """Find the library's own error inside what MONAI and Ignite have wrapped around it."""
    while error is not None:
        if isinstance(error, MetasegError):
            return error
        error = error.__cause__ or error.__context__
    return None
