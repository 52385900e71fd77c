"""Bundles: finding them, checking overrides, running their workflows, and what runs in one."""

from metaseg_monai.bundle.configuration import effective, facts, given, own_root, settings, testing
from metaseg_monai.bundle.overrides import check_overrides, load_config
from metaseg_monai.bundle.run import configs_of, resolve_bundle, run_bundle

__all__ = [
    "check_overrides",
    "configs_of",
    "effective",
    "facts",
    "given",
    "load_config",
    "own_root",
    "resolve_bundle",
    "run_bundle",
    "settings",
    "testing",
]
