#!/usr/bin/env bash
# Install what is missing and run every check: style, types, layers, bundle files, tests.
# Example: bash scripts/test.sh            all checks
#          bash scripts/test.sh -m slow    arguments go to pytest
set -euo pipefail
if [ "${1:-}" = --help ]; then
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
    exit 0
fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[dev,export]"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MPLBACKEND=Agg
ruff check .
ruff format --check .
mypy
lint-imports
python scripts/compose_bundles.py --check
# by file: bundles that a file's tests train are trained once (loadgroup is broken in pytest 9.2 + xdist 3.8)
exec python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile "$@"
