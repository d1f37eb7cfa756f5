package app

import (
	"fmt"
	"math"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
)

// limits says what the workloads of the node share: of the memory, unless the configuration names an amount, two thirds of this
// process's own limit, or without one a quarter of the machine's.
func (c Config) limits() (budget.Limits, error) {
	memory := c.MemoryBudget
	if own := debug.SetMemoryLimit(-1); memory == 0 && own < math.MaxInt64 {
		memory = own / 3 * 2
	}
	if memory == 0 {
		var machine syscall.Sysinfo_t
		if err := syscall.Sysinfo(&machine); err != nil {
			return budget.Limits{}, fmt.Errorf("read the machine's memory; set ZTUNNEL_MEMORY_BUDGET: %w", err)
		}
		memory = int64(machine.Totalram) * int64(machine.Unit) / 4
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return budget.Limits{}, fmt.Errorf("read the limit on open files: %w", err)
	}
	l := budget.Share(memory, int64(min(files.Cur, math.MaxInt64)))
	l.PerWorkload = int64(c.MaxConnections)
	return l, nil
}

// processorTime is what this process has used so far; 0 if the kernel does not tell.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
