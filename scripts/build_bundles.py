"""Put the bundles of the repository into the package that is built, as metaseg_monai/bundles.

With them goes ``_shared``, of which `new-bundle` composes others.

setuptools calls this (pyproject.toml, cmdclass); a checkout that is installed with ``-e`` uses its
own folder bundles/ instead.

Example:
    pip wheel --no-deps --wheel-dir dist .
"""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

BUNDLES = Path("bundles")  # builds run in the root of the project
SHARED = "_shared"
REFERENCES = Path("docs/references.json")  # which reports of their studies print
SHIPPED = ("configs", "docs", "studies", "LICENSE")  # not the data and weights made beside them


class BuildWithBundles(build_py):
    """Copy what is shipped of every bundle besides the modules."""

    def run(self) -> None:
        """Build the modules, and beside them the bundles.

        Raises:
            FileNotFoundError: the folder of the bundles is not there, or has none.
        """
        super().run()
        if self.editable_mode:
            return
        found = sorted(path.parents[1] for path in BUNDLES.glob("*/configs/metadata.json"))
        if not found:
            raise FileNotFoundError(f"no bundle in {BUNDLES.resolve()}; build from a checkout")
        shutil.copy(REFERENCES, Path(self.build_lib, "metaseg_monai", "reporting"))
        shared = Path(self.build_lib, "metaseg_monai", "bundles", SHARED)
        shutil.rmtree(shared, ignore_errors=True)
        shutil.copytree(BUNDLES / SHARED, shared)
        shutil.copy("LICENSE", shared)  # which each bundle has
        for bundle in found:
            target = Path(self.build_lib, "metaseg_monai", "bundles", bundle.name)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            target.mkdir(parents=True)
            for source in (bundle / name for name in SHIPPED if (bundle / name).exists()):
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, target / source.name)
