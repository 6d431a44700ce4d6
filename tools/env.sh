# Sourced by install.sh, quickstart.sh and run_tests.sh: makes sure that a
# virtual environment is active. One that is active is kept; otherwise .venv
# in the repository is used, and made if it is not there.
#
#   S4D_VENV   another place for .venv
#   PYTHON     the interpreter to make it from

S4D_ROOT="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
S4D_PACKED= # an installed package (its folder .mim), with nothing to install
[ -f "$S4D_ROOT/setup.py" ] || S4D_PACKED=1

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

_s4d_supported() {
    "$1" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

_s4d_active() {
    [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ] ||
        python -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' >/dev/null 2>&1
}

_s4d_make_venv() { # folder
    local python names=(python3 python python3.11 python3.12 python3.13 python3.10)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    for python in "${names[@]}"; do
        if _s4d_supported "$python"; then
            echo "Making a virtual environment in $1 ($("$python" --version 2>&1))"
            "$python" -m venv "$1" && return
            rm -rf "$1"
            die "'$python -m venv' failed; on Debian and Ubuntu install the" \
                "package python3-venv, then run this again"
        fi
    done
    die "no Python 3.10 to 3.13 found (tried: ${names[*]}); install one, or name it:" \
        "PYTHON=/path/to/python3.11 $0"
}

if [ -z "$S4D_PACKED" ] && ! _s4d_active; then
    S4D_VENV="${S4D_VENV:-$S4D_ROOT/.venv}"
    [ -e "$S4D_VENV/bin/activate" ] || _s4d_make_venv "$S4D_VENV"
    "$S4D_VENV/bin/python" -c '' >/dev/null 2>&1 ||
        die "$S4D_VENV does not run any more; delete it and run this again"
    # shellcheck disable=SC1091
    . "$S4D_VENV/bin/activate"
fi
_s4d_supported python ||
    die "the active environment has $(python --version 2>&1), but 3.10 to" \
        "3.13 is supported; leave it (deactivate) or activate another one"
