#!/bin/sh
# Which exact packages does each lock hold? Writes the locks anew from pyproject.toml and oracles/*.in (arguments: uv's).
# test.txt comes first: it holds everything, and the others may not differ from it. No lock may name an address.
# Each oracle lives in an environment of its own (tests/oracles), and differs from the others as it likes.
set -eu
cd "$(dirname "$0")/.."

lock() {
    name=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --output-file "requirements/$name.txt" "$@"
}

lock test pyproject.toml --extra sandbox --group test "$@"
lock run pyproject.toml --constraint requirements/test.txt "$@"
lock sandbox pyproject.toml --extra sandbox --constraint requirements/test.txt "$@"
for group in build install node release; do
    lock "$group" --group "$group" "$@"
done
for oracle in requirements/oracles/*.in; do
    lock "oracles/$(basename "$oracle" .in)" "$oracle" "$@"
done
