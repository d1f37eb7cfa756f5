#!/usr/bin/env bash
# upgrade-skew.sh COMMIT: node proxies as COMMIT builds them hand over to those of this tree, and take back; none may drop anything.
set -euo pipefail
commit=$1
dir=$(mktemp -d)
trap 'git worktree remove --force "$dir/tree" 2>/dev/null || true; rm -rf "$dir"' EXIT
git worktree add --quiet --detach "$dir/tree" "$commit"
(cd "$dir/tree" && go test -c -o "$dir/older" ./tools/internal/upgradebed)
go test -count=1 -timeout 10m -v -run '^TestAnOlderBuildHandsOver$' ./tools/internal/upgradebed -older "$dir/older"
