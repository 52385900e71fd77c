"""Bundles: finding them, checking overrides, running their workflows."""

from metaseg_monai.bundle.locate import bundle_name, find_bundle_root, resolve_bundle
from metaseg_monai.bundle.overrides import check_overrides, load_config
from metaseg_monai.bundle.run import configs_of, root_refusal, run_bundle

__all__ = [
    "bundle_name",
    "check_overrides",
    "configs_of",
    "find_bundle_root",
    "load_config",
    "resolve_bundle",
    "root_refusal",
    "run_bundle",
]
