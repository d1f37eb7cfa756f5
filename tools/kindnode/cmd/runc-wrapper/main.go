// Command runc-wrapper is a container runtime: runc, after taking out of the container's specification the
// capabilities that this machine cannot give. The private docker daemon of the lab uses it (package runcshim).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/runcshim"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runc-wrapper:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	limits, err := ownLimits()
	if err != nil {
		return err
	}
	target := runcshim.ParseArgs(args)
	if target.Bundle != "" {
		err = editFile(filepath.Join(target.Bundle, "config.json"), limits, runcshim.EditBundle)
	} else if target.Process != "" {
		err = editFile(target.Process, limits, runcshim.EditProcess)
	}
	if err != nil {
		return err
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return fmt.Errorf("find runc: %w", err)
	}
	return syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ())
}

func ownLimits() (runcshim.Limits, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return runcshim.Limits{}, err
	}
	bounding, err := runcshim.ParseBounding(string(status))
	if err != nil {
		return runcshim.Limits{}, err
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return runcshim.Limits{}, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(score)))
	return runcshim.Limits{Bounding: bounding, OOMScore: n}, err
}

func editFile(path string, l runcshim.Limits, edit func([]byte, runcshim.Limits) ([]byte, error)) error {
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	after, err := edit(before, l)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, after, 0o600)
}
