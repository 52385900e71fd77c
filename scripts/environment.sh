# Sourced by demo.sh and test.sh: make or reuse .venv beside the project and put it on PATH.
# Usage: source scripts/environment.sh EXTRAS, where EXTRAS is empty or like "[dev]".
project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
extras="${1:-}"

fail() {
    echo "error: $1" >&2
    exit 1
}

python="${PYTHON:-python3}"
command -v "$python" >/dev/null || fail "no $python found; install Python 3.10 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old; Python 3.10 or newer is needed (set PYTHON)"

cd "$project" || fail "cannot enter $project"
if [ ! -x .venv/bin/python ]; then
    echo "making .venv"
    "$python" -m venv .venv || fail "cannot make .venv; on Debian and Ubuntu install python3-venv"
fi
wanted="$(cat pyproject.toml constraints.txt | cksum) $extras"
stamp=".venv/.installed${extras//[^a-z]/}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing (some minutes the first time; log in .venv/install.log)"
    # torch first: an unpinned requirement in a build would pull another version
    .venv/bin/python -m pip install --quiet --constraint constraints.txt torch >.venv/install.log 2>&1 &&
        .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".$extras" >>.venv/install.log 2>&1 ||
        fail "installation failed: $(grep -m1 -i error .venv/install.log || tail -n 1 .venv/install.log)"
    echo "$wanted" >"$stamp"
fi
export PATH="$project/.venv/bin:$PATH"
