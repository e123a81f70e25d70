#!/bin/sh
# Run the tests.
#   tools/test.sh                        them (how many of the long ones: tests/effort.py), on the first Python found
#   tools/test.sh [pytest arguments]     only those
#   tools/test.sh --elsewhere [arguments]  the same as on macOS, as far as a Linux can be like it: tests/elsewhere
#   tools/test.sh --others               what is quick and may differ, on each other one of 3.11, 3.12, 3.13 that is on the machine
# Ends non-zero if any Python failed; says at the end which ones ran.
set -u
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX="$PWD/.venv/pycache"  # hundreds of processes are started, and each would compile all of it
jobs=${JOBS:-4}  # many tests wait: for a lease, a signal, a disk
order=--no-loadscope-reorder  # by the number of their tests, files of one long test would come last
quick='not slow and not crash and not postgres'
where='tests/serde tests/versions tests/lint tests/runtime/test_loop* tests/runtime/test_greenlets.py'  # what may differ

tools/setup.sh test || exit 1
if [ "${1:-}" = --elsewhere ]; then  # and the temporary folder is behind a symbolic link there
  shift
  real=$(mktemp -d)
  trap 'rm -rf "$real"' EXIT
  chmod 755 "$real"
  mkdir "$real/real"
  ln -s real "$real/tmp"
  export TESTED_ELSEWHERE=macos TMPDIR="$real/tmp" PYTHONPATH="$PWD/tests/elsewhere${PYTHONPATH:+:$PYTHONPATH}"
fi
first=$(.venv/bin/python -c 'import platform; print(platform.python_version())')
if [ $# -eq 0 ]; then
  tools/debian.sh pgbouncer=pgbouncer
  echo "== Python $first: the tests"
  # Else each of the workers would compile all of them.
  [ -d "$PYTHONPYCACHEPREFIX$PWD/tests" ] || for some in 'tests/[a-r]*' 'tests/[s-z]*'; do
    .venv/bin/python -m pytest -q --collect-only $some >/dev/null 2>&1 &
  done
  wait
  # CI runs the checks of the house with lint.
  .venv/bin/python -m pytest -q -n "$jobs" --dist loadfile $order ${CI:+--ignore=tests/house} || { echo "TESTS FAILED on Python $first"; exit 1; }
  echo "tests passed on Python $first"
  exit
fi
[ "$1" = --others ] || { .venv/bin/python -m pytest -q "$@"; exit; }

failed='' ran=''
for version in $(tools/pythons.sh 2>/dev/null | sed -n 's/^\(3\.1[123]\) .*/\1/p'); do
  case $first in "$version".*) continue ;; esac
  tools/setup.sh test "$version" || { failed="$failed $version"; continue; }
  full=$(".venv-$version/bin/python" -c 'import platform; print(platform.python_version())')
  echo "== Python $full: the quick tests ($quick)"
  if ".venv-$version/bin/python" -m pytest -q -n "$jobs" --dist loadfile $order -m "$quick" $where; then
    ran="$ran, $full (quick)"
  else
    failed="$failed $full"
  fi
done

echo
[ -z "$ran" ] || echo "tests passed on Python ${ran#, }"
[ -z "$failed" ] || { echo "TESTS FAILED on Python$failed"; exit 1; }
