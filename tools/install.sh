#!/usr/bin/env bash
# Install s4d_mm into the active environment, or into .venv (see env.sh).
#
#   bash tools/install.sh [EXTRA ...]     e.g. `bash tools/install.sh tests`
#
# An installed full mmcv is kept; otherwise mmcv-lite is installed (never both:
# they provide the same module). So are the forks onedl-mmengine and
# onedl-mmpretrain. Installs torch and torchvision from PyPI if
# they are missing; for another build of them (CPU only, another CUDA) install
# that first. Does nothing when everything is there.
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

# Is s4d_mm installed from this folder, with what requirements/*.txt ask for?
complete() { # the names of the requirement files
    python -I - "$S4D_ROOT" "$@" <<'PY'
import os
import sys
from importlib import metadata, util

try:
    from pip._vendor.packaging.requirements import Requirement
except ImportError:
    sys.exit(1)
root, names = sys.argv[1], sys.argv[2:]


def forked(name):
    try:
        return metadata.version(f'onedl-{name}')
    except metadata.PackageNotFoundError:
        return None


spec = util.find_spec('s4d_mm')
if spec is None or spec.origin is None or not os.path.samefile(
        os.path.dirname(os.path.dirname(spec.origin)), root):
    sys.exit(1)
for name in names:
    with open(os.path.join(root, 'requirements', f'{name}.txt')) as f:
        lines = [line.split('#')[0].strip() for line in f]
    for line in filter(None, lines):
        want = Requirement(line)
        if want.marker and not want.marker.evaluate():
            continue
        if forked(want.name):
            continue
        try:
            have = metadata.version(want.name)
        except metadata.PackageNotFoundError:
            sys.exit(1)
        if not want.specifier.contains(have, prereleases=True):
            sys.exit(1)
PY
}

extras=("$@")
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
if installed mmcv; then
    echo "Keeping the installed mmcv"
else
    extras+=(lite)
fi

if complete runtime ${extras[@]+"${extras[@]}"}; then
    echo "s4d_mm is installed in $(python -c 'import sys; print(sys.prefix)')"
    exit
fi

# mmengine imports pkg_resources, which setuptools 81 and later may lack
python -m pip install -q --disable-pip-version-check \
    'pip>=23' 'setuptools>=77,<81' wheel
target="$S4D_ROOT" options=()
[ ${#extras[@]} -gt 0 ] && target="$target[$(IFS=,; echo "${extras[*]}")]"
forks=''
for name in mmengine mmpretrain; do
    if installed "onedl-$name"; then
        echo "Keeping the installed onedl-$name"
        forks="$forks${forks:+|}$name"
    fi
done
if [ -n "$forks" ]; then # pip would put the packages of those names over them
    listed="$(mktemp)"
    trap 'rm -f "$listed"' EXIT
    for name in runtime ${extras[@]+"${extras[@]}"}; do
        grep -vE "^($forks)[^a-z]" "$S4D_ROOT/requirements/$name.txt" >>"$listed" || true
    done
    python -m pip install --disable-pip-version-check -r "$listed" ||
        die "pip could not install what s4d_mm needs: see its message above"
    target="$S4D_ROOT" options=(--no-deps)
fi
python -m pip install --disable-pip-version-check --no-build-isolation \
    ${options[@]+"${options[@]}"} -e "$target" ||
    die "pip could not install s4d_mm: see its message above"
python -I -c 'import cv2' || die "OpenCV does not start: see its message" \
    "above (on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0)"
python -I -W ignore -c 'import s4d_mm' || die "s4d_mm does not start: see above"
complete runtime ${extras[@]+"${extras[@]}"} ||
    die "something is still missing; 'pip check' may say what"
echo "Installed s4d_mm in $(python -c 'import sys; print(sys.prefix)')"
