#!/usr/bin/env bash
# Runs the tests that need a real API server: those in files with the build constraint envtest, wherever they are.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=$(git ls-files --cached --others --exclude-standard -- '*_test.go' | xargs grep -l '^//go:build envtest' | xargs -n 1 dirname | sort -u)
[ -n "$packages" ] || { echo "no test has the build constraint envtest" >&2; exit 1; }

failed=0
for package in $packages; do
	module=$package
	until [ -e "$module/go.mod" ]; do module=$(dirname "$module"); done
	echo "envtest $package"
	(cd "$module" && go test -race -count=1 -timeout 15m -tags envtest ".${package#"$module"}") || failed=1
done
exit $failed
