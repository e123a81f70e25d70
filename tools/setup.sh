#!/bin/sh
# Make a virtual environment ready: tools/setup.sh SET [VERSION]
#   SET      run | test | dev: which of requirements/*.lock (each holds the one before it)
#   VERSION  3.12 and so on: then .venv-3.12; without it .venv, on the first Python that tools/pythons.sh finds
# Idempotent, and instant when nothing changed: a stamp inside the environment keeps the checksum of what was installed.
set -eu
cd "$(dirname "$0")/.."
UV=0.13.9
set=$1 version=${2:-} venv=.venv${2:+-$2}

sum=$(cat "requirements/$set.lock" pyproject.toml | cksum)
[ "$(cat "$venv/.ready-$set" 2>/dev/null)" != "$sum" ] || exit 0

if ! "$venv/bin/python" -c '' 2>/dev/null; then
  if [ -z "$version" ] && ! tools/pythons.sh >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "set-up: apt-get install python3-venv (this machine's Python cannot make a virtual environment)" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3 python3-venv; } >/dev/null
  fi
  python=$(tools/pythons.sh | sed -n "s/^${version:-3[.0-9]*} //p" | head -n 1)
  [ -n "$python" ] || { echo "set-up: no Python ${version:-from 3.11 on} here" >&2; exit 1; }
  echo "set-up: $venv with $python" >&2
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi

echo "set-up: installing requirements/$set.lock into $venv" >&2
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input -qq "$@"; }
uv() { "$venv/bin/uv" -q pip "$@" --python "$venv/bin/python"; }
install() {  # by uv, which takes a sixth of pip's time; where it is not to be had, or knows another index, by pip
  { [ -x "$venv/bin/uv" ] || pip install --only-binary :all: "uv==$UV"; } 2>/dev/null && uv install "$@" 2>/dev/null ||
    pip install --no-compile "$@"
}
install -r "requirements/$set.lock"
install --no-deps --no-build-isolation -e .
case $set in
  dev) all="dev test run" ;;
  test) all="test run" ;;
  *) all=run ;;
esac
for each in $all; do
  cat "requirements/$each.lock" pyproject.toml | cksum > "$venv/.ready-$each"
done
