#!/bin/sh
# Run the tests: everything on the first Python, what is quick on each other one of 3.11, 3.12, 3.13 found on the machine.
#   tools/test.sh [pytest arguments]     with arguments: only those, on the first Python
# Ends non-zero if any Python failed; says at the end which ones ran.
set -u
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=1
jobs=${JOBS:-2}
quick='not slow and not crash and not postgres'

tools/setup.sh test || exit 1
[ $# -eq 0 ] || exec .venv/bin/python -m pytest -q "$@"

failed='' ran=''
first=$(.venv/bin/python -c 'import platform; print(platform.python_version())')
echo "== Python $first: all tests"
if .venv/bin/python -m pytest -q -n "$jobs" --dist loadfile; then ran="$first (all)"; else failed=" $first"; fi

for version in $(tools/pythons.sh 2>/dev/null | sed -n 's/^\(3\.1[123]\) .*/\1/p'); do
  case $first in "$version".*) continue ;; esac
  tools/setup.sh test "$version" || { failed="$failed $version"; continue; }
  full=$(".venv-$version/bin/python" -c 'import platform; print(platform.python_version())')
  echo "== Python $full: the quick tests ($quick)"
  if ".venv-$version/bin/python" -m pytest -q -n "$jobs" --dist loadfile -m "$quick" --ignore=tests/house; then
    ran="$ran, $full (quick)"
  else
    failed="$failed $full"
  fi
done

echo
[ -z "$ran" ] || echo "tests passed on Python ${ran#, }"
[ -z "$failed" ] || { echo "TESTS FAILED on Python$failed"; exit 1; }
