#!/usr/bin/env bash
# test.sh MODULE…: runs the tests of the modules with the race detector; all run even when one fails. One go command builds and runs them
# all, so that no core is idle while a module's last test runs. What go vet would say is among what `make lint` does.
set -euo pipefail
set -- "${@/#/./}"
go test -race -vet=off -timeout 20m "${@/%//...}"
