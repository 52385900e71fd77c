"""A configuration is read without being run, and what is not on the list is told."""

from pathlib import Path

import pytest

from metaseg_monai.bundle.trust import read_bundle

BUNDLES = sorted((Path(__file__).resolve().parents[2] / "bundles").glob("*/configs"))


@pytest.mark.parametrize("configs", BUNDLES, ids=lambda path: path.parent.name)
def test_our_bundles_are_clean(configs):
    """A new part of a bundle must be written into the lists of metaseg_monai/bundle/trust.py."""
    assert read_bundle(configs.parent) == []
