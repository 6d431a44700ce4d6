#!/usr/bin/env bash
# Install s4d_mm into the active environment, or into .venv (see env.sh).
#
#   bash tools/install.sh [EXTRA ...]     e.g. `bash tools/install.sh tests`
#
# What is there is kept, also a full mmcv (in place of mmcv-lite), onedl-mmengine and
# onedl-mmpretrain. For another build of torch (CPU only, another CUDA) install that first.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [ -n "$S4D_PACKED" ]; then
    python -W ignore -c 'import s4d_mm' || die "the package of $S4D_ROOT is not" \
        "installed in the active environment"
    exit
fi

installed() { # is this distribution installed?
    python -I -c 'import sys
from importlib.metadata import distribution
distribution(sys.argv[1])' "$1" >/dev/null 2>&1
}

names=(runtime "$@")
for extra in "$@"; do
    [ -f "$S4D_ROOT/requirements/$extra.txt" ] ||
        die "unknown extra '$extra': there is no requirements/$extra.txt"
done
python -m pip --version >/dev/null 2>&1 ||
    python -m ensurepip --upgrade >/dev/null ||
    die "the environment has no pip and 'python -m ensurepip' failed"
installed onedl-mmcv &&
    die "mmaction2 refuses onedl-mmcv, which is 2.3 or later: 'pip uninstall" \
        "onedl-mmcv', then run this again"
installed mmcv || names+=(lite)

listed="$(mktemp)"
trap 'rm -f "$listed"' EXIT
for name in "${names[@]}"; do
    cat "$S4D_ROOT/requirements/$name.txt" >>"$listed"
done
for name in mmengine mmpretrain; do # pip would put the packages of these names over the forks
    if installed "onedl-$name"; then
        grep -v "^$name[^a-z]" "$listed" >"$listed.part"
        mv "$listed.part" "$listed"
    fi
done
echo "Installing what is missing of ${names[*]} (requirements/*.txt)"
# mmengine imports pkg_resources, which setuptools 81 and later may lack
install=(python -m pip install -q --disable-pip-version-check)
{ "${install[@]}" 'pip>=23' 'setuptools>=77,<81' wheel && "${install[@]}" -r "$listed" &&
    "${install[@]}" --no-build-isolation --no-deps -e "$S4D_ROOT"; } ||
    die "pip could not install what s4d_mm needs: see its message above"
python -I -c 'import cv2' || die "OpenCV does not start: see its message" \
    "above (on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0)"
python -I -W ignore -c 'import s4d_mm' || die "s4d_mm does not start: see above"
echo "s4d_mm is installed in $(python -c 'import sys; print(sys.prefix)')"
