#!/bin/sh
# Check types, strictly, with mypy and with pyright:
#   the package; the programs that users write, against the agreed face (stubs) and against the package.
set -u
cd "$(dirname "$0")/.."
tools/setup.sh dev || exit 1
bin=$PWD/.venv/bin status=0

check() {  # check NAME COMMAND...: one line when it passes, the whole output when it does not
  name=$1
  shift
  if out=$("$@" 2>&1); then echo "types: $name: fine"; else echo "types: $name: FAILED"; echo "$out"; status=1; fi
}
within() { (cd "$1" && shift && "$@"); }
pyright() { "$bin/pyright" --warnings --pythonpath "$bin/python" "$@"; }

check "package, mypy" "$bin/mypy"
check "package, pyright" pyright -p pyproject.toml
check "agreed face, mypy" within tests/typing env MYPYPATH=face:. "$bin/mypy" --config-file mypy.ini --cache-dir ../../.mypy_cache/face face/perdure programs
check "agreed face, pyright" pyright -p tests/typing/face.json
if [ -f src/perdure/sync/__init__.py ]; then
  check "programs on the package, mypy" within tests/typing env MYPYPATH=../../src:. "$bin/mypy" --config-file mypy.ini --cache-dir ../../.mypy_cache/product programs
  check "programs on the package, pyright" pyright -p tests/typing/product.json
else
  echo "types: programs on the package: not yet (no perdure.sync)"
fi
exit $status
