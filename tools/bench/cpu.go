package bench

import (
	"runtime/metrics"
	"syscall"
	"time"
)

// CPUTime is what this process has used, but for what the garbage collector does only because a processor is idle.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	idle := []metrics.Sample{{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	metrics.Read(idle)
	return time.Duration(u.Utime.Nano()+u.Stime.Nano()) - time.Duration(idle[0].Value.Float64()*float64(time.Second))
}
