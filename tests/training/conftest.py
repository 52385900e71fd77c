import importlib.util
from pathlib import Path

import pytest

collect_ignore = ["killed_run.py"]  # a script, which finds its sibling only when run as one


@pytest.fixture(scope="session")
def runs():
    """The module of the tiny training run."""
    path = Path(__file__).with_name("tiny_run.py")
    spec = importlib.util.spec_from_file_location("tiny_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
