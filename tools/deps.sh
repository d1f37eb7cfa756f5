#!/usr/bin/env bash
# Installs the Debian packages that the sandbox, the demo and the tests use, when a command of theirs is missing.
set -euo pipefail

# command=package
needs=(
	ip=iproute2
	nft=nftables
	tcpdump=tcpdump
	curl=curl
	openssl=openssl
	/usr/lib/cni/bridge=containernetworking-plugins
	ps=procps
	haproxy=haproxy
	nghttpx=nghttp2-proxy
	cc=gcc
	pip3=python3-pip
)
packages=()
for need in "${needs[@]}"; do
	command -v "${need%%=*}" >/dev/null 2>&1 || packages+=("${need##*=}")
done
[ ${#packages[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing: ${packages[*]}; install them, or run this as root" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "missing: ${packages[*]}; this script knows only Debian's apt-get, so install them by hand" >&2
	exit 1
fi
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
