"""Train and test several variants of one bundle on the same data, then report."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.blocks import ALL_VARIANTS
from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation.report import write_report
from metaseg_monai.sharing.locate import resolve_bundle
from metaseg_monai.sharing.overrides import check_overrides, load_config
from metaseg_monai.sharing.run import run_bundle

logger = logging.getLogger(__name__)


def compare(
    bundle: str, variants: Sequence[str], output: str | Path, settings: Mapping[str, Any]
) -> Path:
    """Run ``train.json`` and ``evaluate.json`` for each variant and write the report.

    A run that is already finished in ``output`` is kept; an interrupted one goes on.

    Args:
        bundle: name or folder of the bundle.
        variants: names such as ``se``, ``sme``, ``film-dummy``.
        output: folder; each variant gets a folder of its name in it.
        settings: overrides for all variants.

    Returns:
        Path of ``report.html``.

    Raises:
        ConfigError: for unknown overrides or variants, before anything is trained.
    """
    folder, root = Path(output).resolve(), resolve_bundle(bundle)
    _check_variants(variants)
    configs = [root / "configs" / name for name in ("train.json", "evaluate.json")]
    check_overrides(configs, settings)
    only_testing = load_config(configs).keys() - load_config(configs[:1]).keys()
    started = time.monotonic()
    for number, variant in enumerate(variants):
        left = _left(started, number, len(variants))
        logger.warning("%s (%d of %d)%s", variant, number + 1, len(variants), left)
        overrides = {**settings, "variant": variant, "output_dir": str(folder / variant)}
        train = {key: value for key, value in overrides.items() if key not in only_testing}
        run_bundle(root, ["train.json"], {**train, "resume": True})
        run_bundle(root, ["train.json", "evaluate.json"], overrides)
    return write_report({name: folder / name for name in variants}, folder, _title(root.name))


def _check_variants(variants: Sequence[str]) -> None:
    wrong = [name for name in variants if name not in ALL_VARIANTS]
    if wrong or len(set(variants)) < len(variants) or not variants:
        raise ConfigError(
            f"--variants {','.join(variants)}: name each once, of {', '.join(ALL_VARIANTS)}"
            + (f"; {', '.join(wrong)} is none of them." if wrong else ".")
        )


def report(runs: str | Path, output: str | Path | None, title: str) -> Path:
    """Write the report of every run in a folder (see `metaseg_monai.evaluation.report`).

    Raises:
        ConfigError: if no folder in it holds a ``counts.csv``.
    """
    folder = Path(runs)
    found = {path.parent.name: path.parent for path in sorted(folder.glob("*/counts.csv"))}
    known = [name for name in ALL_VARIANTS if name in found]
    found = {name: found[name] for name in [*known, *sorted(found.keys() - set(known))]}
    if not found:
        raise ConfigError(f"No folder in {folder} holds a counts.csv; evaluate a model first.")
    return write_report(found, folder if output is None else Path(output), title)


def _left(started: float, done: int, total: int) -> str:
    if not done:
        return ""
    seconds = (time.monotonic() - started) / done * (total - done)
    return f", about {max(1, round(seconds / 60))} min left for all"


def _title(name: str) -> str:
    return name.removesuffix("_segmentation").replace("_", " ").capitalize()
