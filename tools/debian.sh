#!/bin/sh
# Install Debian packages that are not here, where that is possible (a Debian, as root): tools/debian.sh PROGRAM=PACKAGE ...
# What needs them fails by itself, and says so, where they are still missing.
PATH=$PATH:/usr/sbin
packages=''
for pair in "$@"; do
  command -v "${pair%%=*}" >/dev/null || packages="$packages ${pair#*=}"
done
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2086
  apt-get install -y -qq $packages >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq $packages; } >/dev/null 2>&1 || true
fi
for pair in "$@"; do
  command -v "${pair%%=*}" >/dev/null || echo "no ${pair%%=*} here (Debian: apt-get install ${pair#*=}): the tests that need it will fail"
done
