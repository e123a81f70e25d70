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
pyright() { "$bin/pyright" --warnings --pythonpath "$bin/python" "$@"; }
mypy_programs() { mypath=$1; shift; env MYPYPATH="$mypath:tests/typing" "$bin/mypy" --config-file tests/typing/mypy.ini "$@" tests/typing/programs; }

check "package, mypy" "$bin/mypy"
check "programs on the package, mypy" mypy_programs src
cache=.mypy_cache/face  # of its own: what is named perdure is another there; the rest is known already
[ -d $cache ] || { mkdir -p $cache && cp -R .mypy_cache/3.11 $cache/; } 2>/dev/null
check "agreed face, mypy" mypy_programs tests/typing/face --cache-dir $cache tests/typing/face/perdure
check "package, pyright" pyright -p pyproject.toml
check "programs on the package, pyright" pyright -p tests/typing/product.json
check "agreed face, pyright" pyright -p tests/typing/face.json
exit $status
