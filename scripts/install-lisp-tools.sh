#!/usr/bin/env bash
# What the tests against another implementation of LISP need: pylisp (PyPI, BSD licence), which is written for Python 2 and
# is made to run on Python 3 here.
# Usage: sudo scripts/install-lisp-tools.sh [FOLDER]   (default: .ci/lisp-tools)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.ci/lisp-tools}")
version=0.4.2
sum=397ae8cafdc801008299d37cfb71f25d5ce8d5d062014f6046e5e99aef88377e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"

apt-get update -qq
env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-bitstring python3-lib2to3 python3-pip

if [ ! -d "$folder/pylisp" ]; then
  # Its setup.py does not run on Python 3, so pip can find the archive, but not keep it.
  url=$(pip3 download -vv --no-deps --no-binary :all: --dest "$work" "pylisp==$version" 2>&1 |
    grep -o "http[^ #\"]*/pylisp-$version\.tar\.gz" | head -n 1 || true)
  [ -n "$url" ] || { echo "pip3 finds no pylisp $version" >&2; exit 1; }
  python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$url" "$work/pylisp.tar.gz"
  echo "$sum  $work/pylisp.tar.gz" | sha256sum --check --quiet
  tar -xzf "$work/pylisp.tar.gz" -C "$work" --strip-components=1
  /usr/bin/python3 -c 'import lib2to3.main, sys; sys.exit(lib2to3.main.main("lib2to3.fixes", sys.argv[1:]))' \
    --write --nobackups --no-diffs "$work/pylisp" "$work/scripts/lispd" 2>/dev/null
  # What 2to3 leaves to people: texts that are octets.
  find "$work/pylisp" -name '*.py' -exec sed -i \
    -e "s/='\\\\x00/=b'\\\\x00/; s/+ '\\\\x00/+ b'\\\\x00/; s/= '\\\\x00/= b'\\\\x00/" \
    -e "s/\(authentication_data\|options\|payload\)=''/\1=b''/g; s/return ''\$/return b''/" \
    -e "s/\.encode('hex')/.hex()/; s/ord(\(message\[[^]]*\]\))/\1/g" \
    -e 's/^import multiprocessing.dummy as mp/import multiprocessing as mp/' \
    -e 's/collections\.Sequence/collections.abc.Sequence/; s/^import collections$/import collections.abc/' {} +
  rm -rf "$folder/pylisp.part" && mkdir "$folder/pylisp.part"
  cp -r "$work/pylisp" "$work/scripts/lispd" "$folder/pylisp.part/"
  mv "$folder/pylisp.part" "$folder/pylisp"
fi
echo "ready: $folder"
