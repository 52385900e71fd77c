#!/usr/bin/env bash
# From a bare machine to a report: install, generate shapes, train, test, write runs/demo/report.html.
# Example: bash scripts/demo.sh --output runs/demo
set -euo pipefail
case "${1:-}" in
-h | --help)
    echo "usage: bash scripts/demo.sh [--output DIR] [--seed N] [--variants se,me,sme,film] [--epochs N]"
    echo "example: bash scripts/demo.sh --output runs/demo"
    exit 0
    ;;
esac
here="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
    --output | --output=*)
        if [ "$1" = --output ]; then
            [ $# -gt 1 ] || fail "--output needs a folder"
            shift
        fi
        folder="${1#--output=}"
        case "$folder" in /*) ;; *) folder="$here/$folder" ;; esac
        arguments+=(--output "$folder")
        shift
        ;;
    *)
        arguments+=("$1")
        shift
        ;;
    esac
done
exec python -m metaseg_monai demo ${arguments[@]+"${arguments[@]}"}
