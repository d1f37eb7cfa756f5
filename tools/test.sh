#!/usr/bin/env bash
# test.sh MODULE…: runs the tests of the modules with the race detector; all run even when one fails. One go command builds and runs them
# all, so that no core is idle while a module's last test runs. What go vet would say is among what `make lint` does. What failed is said
# once more at the end.
set -euo pipefail
set -- "${@/#/./}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test -race -vet=off -timeout 20m "${@/%//...}" 2>&1 | tee "$log" || {
  echo "failed:"
  grep -E '^ *--- FAIL|^FAIL[[:space:]]|^panic: |^fatal error: ' "$log"
  exit 1
}
