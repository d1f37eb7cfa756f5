package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/internal/planeproc"
)

// pilot is the control plane as a process.
type pilot struct{ *planeproc.Process }

// cpu is what the process used so far.
func (p *pilot) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// rss returns the resident memory, and the most it ever was, in MiB.
func (p *pilot) rss() (now, peak float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %g kB", &kib); n == 1 {
			now = kib / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %g kB", &kib); n == 1 {
			peak = kib / 1024
		}
	}
	return now, peak, nil
}

// profile writes one of the process's profiles to a file, when a directory is given.
func (p *pilot) profile(ctx context.Context, path, dir, file string) error {
	if dir == "" {
		return nil
	}
	data, err := planeproc.Get(ctx, p.HTTP, path)
	if err != nil {
		data, err = planeproc.Get(ctx, p.Monitoring, path)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), data, 0o600)
}

// heap collects garbage and returns what is left, in MiB.
func (p *pilot) heap(ctx context.Context) (float64, error) {
	profile, err := planeproc.Get(ctx, p.HTTP, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		profile, err = planeproc.Get(ctx, p.Monitoring, "/debug/pprof/heap?gc=1&debug=1")
	}
	if err != nil {
		return 0, err
	}
	scanner := bufio.NewScanner(strings.NewReader(string(profile)))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var bytes float64
		if n, _ := fmt.Sscanf(scanner.Text(), "# HeapAlloc = %g", &bytes); n == 1 {
			return bytes / (1 << 20), nil
		}
	}
	return 0, errors.New("no heap in the profile")
}
