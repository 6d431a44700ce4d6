#!/usr/bin/env bash
# Install what the tests need, check the style, and run them.
#
#   bash tools/run_tests.sh [arguments of pytest]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ -z "$S4D_PACKED" ] ||
    die "the installed package has no tests; run this in the source tree"

bash "$S4D_ROOT/tools/install.sh" tests
# the web page is tested in a browser
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
    ! command -v chromium >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq \
        --no-install-recommends chromium >/dev/null; } ||
        die "could not install chromium, which tests/test_predict/test_page.py needs"
fi
cd "$S4D_ROOT"
python -m ruff check . || die "mend this, or let 'ruff check --fix' do it"
python -m ruff format --check . || die "'ruff format' mends this"
# two processes (another -n may follow); a file's tests share what they build
exec python -m pytest -n 2 --dist loadfile tests "$@"
