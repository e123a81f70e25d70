#!/bin/sh
# Which Pythons of ours this machine has: one line each, "3.12 /path/to/python", in the order 3.11, 3.12, 3.13, then any
# newer one. Looks at PATH, pyenv, Homebrew, python.org's framework and uv's store; lists only those that really run and
# can make a virtual environment (a pyenv shim may not run; Debian may lack venv: then a word on standard error).

able() { "$1" -c 'import venv, ensurepip, ssl, sys; sys.exit("%d.%d" % sys.version_info[:2] != "'"$2"'")' >/dev/null 2>&1; }

for minor in 11 12 13 14 15; do
  version=3.$minor
  for python in \
    "$(command -v python$version 2>/dev/null)" "$(command -v python3 2>/dev/null)" "$(command -v python 2>/dev/null)" \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/$version.*/bin/python \
    /opt/homebrew/bin/python$version /usr/local/bin/python$version /usr/bin/python$version \
    /Library/Frameworks/Python.framework/Versions/$version/bin/python$version \
    "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-$version*/bin/python$version
  do
    [ -x "$python" ] || continue
    able "$python" $version || continue
    echo "$version $python"
    found=yes
    break
  done
done

if [ -z "$found" ]; then
  echo "No Python from 3.11 on that can make a virtual environment was found on this machine." >&2
  echo "  Debian, Ubuntu:  apt-get install python3 python3-venv" >&2
  echo "  macOS:           brew install python@3.13, or the installer from python.org" >&2
  exit 1
fi
