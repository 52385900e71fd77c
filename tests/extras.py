"""What is not installed everywhere: tests of it skip.

With METASEG_REQUIRE_EXTRAS=1 they fail instead, see CONTRIBUTING.md.
"""

import importlib
import os
import warnings

import pytest

from metaseg_monai.inferers.engines import is_installed

REQUIRED = os.environ.get("METASEG_REQUIRE_EXTRAS", "0") != "0"


def lacking(what):
    """Skip the test, or the file, that needs what is not here."""
    __tracebackhide__ = True
    if REQUIRED:
        pytest.fail(f"{what}, and METASEG_REQUIRE_EXTRAS asks for it", pytrace=False)
    pytest.skip(what, allow_module_level=True)


def needed(module, reason=None):
    """Import a module that an extra brings, as `pytest.importorskip` does."""
    __tracebackhide__ = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        return lacking(reason or f"{module} is not installed ({error})")


def needs(*packages):
    """Mark a test that runs only where packages are installed."""
    absent = [name for name in packages if not is_installed(name)]
    told = f"not installed: {', '.join(absent)}"
    return pytest.mark.skipif(bool(absent) and not REQUIRED, reason=told)
