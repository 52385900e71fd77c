"""Run a bundle's workflow in this process, with checked overrides."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from metaseg_monai.bundle.overrides import check_overrides
from metaseg_monai.errors import ConfigError, MetasegError

WORKFLOWS = {"train", "evaluate", "explain", "estimate", "inference", "multi_gpu_train"}
NO_CONFIGURATION = ("facts", "metadata", "schema", "columns")


def configs_of(*names: str, more: str | Sequence[str] | None = None) -> list[str]:
    """The files of a workflow, and further configurations of the bundle merged last, in order.

    >>> configs_of("train", "evaluate", more="pilot")
    ['train.json', 'evaluate.json', 'pilot.json']
    """
    further = more.split(",") if isinstance(more, str) else list(more or [])
    return [f"{name.strip().removesuffix('.json')}.json" for name in (*names, *further)]


def run_bundle(
    bundle: Path, config_names: Sequence[str], overrides: Mapping[str, Any]
) -> ConfigWorkflow:
    """Initialize, run and finalize one workflow of a bundle, as ``monai.bundle run`` does.

    Args:
        bundle: folder of the bundle.
        config_names: files under ``configs`` that are merged in this order.
        overrides: ``{id: value}``; paths must be absolute or relative to the working directory.

    Returns:
        The workflow that ran, whose parser gives its objects by id.

    Raises:
        ConfigError: for a file that is not there, or an override that nothing uses.
        MetasegError: whatever the library itself refuses, without the wrappers of MONAI.
    """
    files = [bundle / "configs" / name for name in config_names]
    for file in files:
        if not file.is_file():
            found = {path.stem for path in file.parent.glob("*.json")}
            known = [n for n in sorted(found - WORKFLOWS) if not n.startswith(NO_CONFIGURATION)]
            raise ConfigError(
                f"{file}: no such configuration; {bundle.name} has {', '.join(known) or 'none'}"
            )
    settings = {"bundle_root": str(bundle), **check_overrides(files, overrides)}
    for engine in ("SupervisedTrainer", "SupervisedEvaluator"):
        logging.getLogger(f"ignite.engine.engine.{engine}").addFilter(_is_news)
    workflow = ConfigWorkflow(
        config_file=[str(file) for file in files],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=str(bundle / "configs" / "logging.conf"),
        workflow_type="infer" if "inference.json" in config_names else "train",
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


def _is_news(record: logging.LogRecord) -> bool:
    """Drop Ignite's own words on an exception, which is told once, by who catches it."""
    return "terminating due to exception" not in record.getMessage()


def root_refusal(error: BaseException | None) -> MetasegError | None:
    """Find the library's own error inside what MONAI and Ignite have wrapped around it."""
    while error is not None:
        if isinstance(error, MetasegError):
            return error
        error = error.__cause__ or error.__context__
    return None
