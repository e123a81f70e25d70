#!/bin/sh
# The libraries that `make bench` compares with, each in an environment of its own below .venv-peers:
#   tools/peers.sh [dbos] [absurd] [restate]      (all of them without arguments)
# Versions are those that docs/internals/performance.md was measured with. One that cannot be installed is said and
# left out: the benchmarks then run without it. Restate's server comes from npm, and only where there is an npm.
set -u
cd "$(dirname "$0")/.."
home=.venv-peers
python=$(tools/pythons.sh | sed -n 's/^3[.0-9]* //p' | head -n 1)
mkdir -p "$home"

make_one() {  # make_one NAME PACKAGE…
  name=$1 venv=$home/$1
  shift
  [ "$(cat "$venv/.ready" 2>/dev/null)" != "$*" ] || return 0
  echo "peers: installing $* into $venv" >&2
  "$python" -m venv --clear "$venv" &&
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input -qq install "$@" &&
    echo "$*" > "$venv/.ready" && return 0
  rm -rf "$venv"
  echo "peers: $name could not be installed; the benchmarks leave it out" >&2
  return 1
}

[ $# -gt 0 ] || set -- dbos absurd restate
for peer in "$@"; do
  case $peer in
    # pysqlite3-binary: this DBOS needs SQLite 3.42 or newer, which many systems do not have.
    dbos) make_one dbos dbos==3.4.0 'psycopg[binary]==3.3.9' pysqlite3-binary ;;
    absurd) make_one absurd absurd-sdk==0.5.1 absurdctl==0.5.1 'psycopg[binary]==3.3.9' ;;
    restate)
      make_one restate restate-sdk==1.2.0 hypercorn==0.18.0 aiohttp || continue
      server=@restatedev/restate-server@1.7.12
      [ "$(cat "$home/restate/.server" 2>/dev/null)" != "$server" ] || continue
      if command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix "$home/restate" "$server"; then
        echo "$server" > "$home/restate/.server"
      else
        echo "peers: no Restate server (needs npm); the benchmarks leave Restate out" >&2
      fi ;;
    *) echo "peers: no such peer: $peer (dbos, absurd, restate)" >&2; exit 2 ;;
  esac
done
