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

_s4d_active() {
    [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ] ||
        python -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' >/dev/null 2>&1
}

if [ -z "$S4D_PACKED" ] && ! _s4d_active; then
    S4D_VENV="${S4D_VENV:-$S4D_ROOT/.venv}"
    [ -e "$S4D_VENV/bin/activate" ] || "${PYTHON:-python3}" -m venv "$S4D_VENV" ||
        die "'${PYTHON:-python3} -m venv $S4D_VENV' failed: on Debian and Ubuntu install" \
            "python3-venv, or name an interpreter: PYTHON=/path/to/python3.11 $0"
    # shellcheck disable=SC1091
    . "$S4D_VENV/bin/activate"
fi
python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' ||
    die "the environment has $(python --version 2>&1), but 3.10 to 3.13 is supported: leave" \
        "it (deactivate) or delete it, and run this with PYTHON=/path/to/python3.11"
