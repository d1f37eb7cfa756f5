// Package cgroup reads the limits that the kernel puts on this process, of control groups of either version. The Go runtime
// itself minds the limit on processors; on memory it must be told.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// unlimited is above every real limit: version 1 writes the largest number of pages for none.
const unlimited = math.MaxInt64 / 2

// MemoryLimit is the least limit on this process and the groups around it, in bytes; false: there is none. root is the host's
// file system, os.DirFS("/").
func MemoryLimit(root fs.FS) (int64, bool, error) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	least := int64(unlimited)
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // id:controllers:path
		if len(parts) != 3 {
			continue
		}
		mount, file := "", ""
		switch controllers := "," + parts[1] + ","; {
		case parts[1] == "":
			mount, file = "sys/fs/cgroup", "memory.max"
		case strings.Contains(controllers, ",memory,"):
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		found, err := along(root, mount, parts[2], file)
		if err != nil {
			return 0, false, err
		}
		least = min(least, found)
	}
	return least, least < unlimited, nil
}

// along reads the limit of a group and of those around it. In a container without a namespace of control groups the path is the
// host's, of which only the root is mounted.
func along(root fs.FS, mount, group, file string) (int64, error) {
	least := int64(unlimited)
	for at := path.Clean("/" + group); ; at = path.Dir(at) {
		raw, err := fs.ReadFile(root, path.Join(mount, at, file))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
		case err != nil:
			return 0, err
		default:
			text := strings.TrimSpace(string(raw))
			if text != "max" {
				limit, err := strconv.ParseInt(text, 10, 64)
				if err != nil {
					return 0, fmt.Errorf("%s: %w", path.Join(mount, at, file), err)
				}
				least = min(least, limit)
			}
		}
		if at == "/" {
			return least, nil
		}
	}
}

// ApplyMemoryLimit tells the runtime to stay within nine tenths of the memory limit, so that it collects garbage before the
// kernel ends the process: the rest is for what the runtime does not count. A lower GOMEMLIMIT stays. It returns what counts
// now; 0 is no limit.
func ApplyMemoryLimit(root fs.FS) (int64, error) {
	now := debug.SetMemoryLimit(-1) // reads it
	limit, ok, err := MemoryLimit(root)
	if err != nil {
		return 0, fmt.Errorf("memory limit of the control group: %w", err)
	}
	if ok {
		now = min(now, limit/10*9)
		debug.SetMemoryLimit(now)
	}
	if now == math.MaxInt64 {
		return 0, nil
	}
	return now, nil
}
