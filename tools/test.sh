#!/usr/bin/env bash
# test.sh MODULE…: runs the tests of each module with the race detector; all run even when one fails.
set -uo pipefail
failed=()
for module in "$@"; do
	(cd "$module" && go test -race -timeout 20m ./...) || failed+=("$module")
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "failed: ${failed[*]}" >&2
	exit 1
fi
