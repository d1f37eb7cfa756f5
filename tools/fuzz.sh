#!/usr/bin/env bash
# fuzz.sh TIME MODULE…: runs every fuzz target of the modules for TIME each, of which little goes into making interesting inputs smaller:
# by default that takes a minute each, in which nothing new is tried.
set -euo pipefail
time=$1
shift
for module in "$@"; do
	while IFS=: read -r file target; do
		package=./$(dirname "${file#"$module"/}")
		echo "fuzz $module $package $target"
		(cd "$module" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "$package")
	done < <(grep -rhoE --include='*_test.go' -H '^func Fuzz[A-Za-z0-9_]+' "$module" | sed 's/func //' | grep -v "^$module/.*/go.mod" | sort -u)
done
