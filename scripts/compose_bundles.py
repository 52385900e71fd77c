"""Write the flat configurations of every bundle from what all share and what is its own.

See `metaseg_monai.bundle.compose`, which the command new-bundle uses as well.
"""

import sys
from pathlib import Path

from metaseg_monai.bundle.compose import compose
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"


def main(check: bool = False) -> None:
    """Write the composed files of all bundles, or with --check only compare them.

    Example:
        python scripts/compose_bundles.py
        python scripts/compose_bundles.py --check

    Args:
        check: change nothing; exit with 1 and name the files that are not fresh.
    """
    stale = []
    for facts in sorted(BUNDLES.glob("*/configs/facts.json")):
        bundle = facts.parents[1]
        try:
            composed = compose(bundle, BUNDLES / "_shared")
        except ConfigError as error:
            sys.exit(str(error))
        for name, text in composed.items():
            path = bundle / name
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            stale.append(str(path.relative_to(BUNDLES.parent)))
            if not check:
                path.write_text(text, encoding="utf-8")
    verb = "not fresh, run python scripts/compose_bundles.py:" if check else "written:"
    print(f"{verb} {', '.join(stale)}" if stale else "all bundle files are fresh")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
