#!/bin/sh
# Check the models of models/ with spin: what holds must hold, and what is known to be unsound must be found out.
# Needs spin and a C compiler; where it may (a fresh Debian, as root), it installs them.
set -eu
cd "$(dirname "$0")/../models"
if ! command -v spin >/dev/null || ! command -v gcc >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -qq spin gcc >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq spin gcc; } >/dev/null 2>&1 || true
  fi
  command -v spin >/dev/null || { echo "models: no spin here (Debian: apt-get install spin)"; exit 1; }
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

model() {  # model holds|fails FILE [-DNAME[=VALUE]]...
  expected=$1 file=$2
  shift 2
  (cd "$work" && spin -a "$@" "$OLDPWD/$file" >spin.log 2>&1 && gcc -O1 -o pan $search pan.c) || { cat "$work/spin.log"; exit 1; }
  (cd "$work" && ./pan -m1000000 $run) >"$work/pan.log" 2>&1 || true
  errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/pan.log")
  states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$work/pan.log")
  found=holds
  [ "${errors:-0}" = 0 ] || found=fails
  [ -n "$errors" ] || { cat "$work/pan.log"; exit 1; }
  ! grep -q "max search depth too small" "$work/pan.log" || found="cut short"
  verdict=ok
  [ "$found" = "$expected" ] || { verdict=WRONG failed=1; }
  printf '%-6s %-10s %s: %s, %s states\n' "$verdict" "$file" "$(echo "$*" | sed 's/-D//g')" "$found" "${states:-?}"
}

search=-DSAFETY run=-E
model holds claim.pml -DFENCE=2 -DRESET
model holds claim.pml -DFENCE=2 -DLOSSY -DNOTICE
model holds claim.pml -DFENCE=2 -DLOSSY -DNOTICE -DRESET
model holds claim.pml -DFENCE=2 -DRESET -DEXECUTORS=3
model holds claim.pml -DFENCE=2 -DLOSSY -DNOTICE -DEXECUTORS=3 -DCLAIMS=3
model fails claim.pml -DFENCE=2 -DLOSSY
model fails claim.pml -DFENCE=1 -DLOSSY
model fails claim.pml -DFENCE=0 -DRESET
search='' run='-a -f -E'
model holds wake.pml -DWAKE
model fails wake.pml
[ $failed = 0 ] || { echo "models: some came out otherwise"; exit 1; }
