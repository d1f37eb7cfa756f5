package app

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/isthmus-mesh/isthmus/pkg/cgroup"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
)

func TestLimits(t *testing.T) {
	l, err := Config{MemoryBudget: 64 << 20, MaxConnections: 7}.limits()
	if err != nil || l.Buffers != 32<<20 || l.Connections < 1 || l.Connections > 2048 || l.PerWorkload != 7 {
		t.Errorf("%+v, %v", l, err)
	}
	// Whatever this machine has, it is something.
	if l, err = (Config{}).limits(); err != nil || l.Buffers < 1<<20 || l.Connections < 1 || l.PerWorkload != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// What the workloads share follows from what the container may use, as the process applies it when it starts: two thirds of nine tenths,
// unless somebody says otherwise.
func TestLimitsComeFromTheContainers(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const container = 300_000_000
	for name, tt := range map[string]struct {
		files   map[string]string
		runtime int64 // GOMEMLIMIT; 0 is none
		config  Config
		want    int64 // the memory budget; 0 is what the machine says
	}{
		"the container's": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300000000\n"},
			want:  container / 10 * 9 / 3 * 2,
		},
		"the pod's, which is less": {
			files: map[string]string{
				"proc/self/cgroup": "0::/pod/ztunnel\n", "sys/fs/cgroup/pod/ztunnel/memory.max": "900000000\n", "sys/fs/cgroup/pod/memory.max": "300000000\n",
			},
			want: container / 10 * 9 / 3 * 2,
		},
		"the container's, of version 1": {
			files: map[string]string{"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "300000000\n"},
			want:  container / 10 * 9 / 3 * 2,
		},
		"GOMEMLIMIT below it": {
			files:   map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300000000\n"},
			runtime: 90_000_000, want: 60_000_000,
		},
		"GOMEMLIMIT above it": {
			files:   map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300000000\n"},
			runtime: 900_000_000, want: container / 10 * 9 / 3 * 2,
		},
		"the one that is configured": {
			files:  map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300000000\n"},
			config: Config{MemoryBudget: 8 << 20}, want: 8 << 20,
		},
		"none": {files: map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetMemoryLimit(math.MaxInt64)
			if tt.runtime != 0 {
				debug.SetMemoryLimit(tt.runtime)
			}
			root := fstest.MapFS{}
			for path, text := range tt.files {
				root[path] = &fstest.MapFile{Data: []byte(text)}
			}
			if _, err := cgroup.ApplyMemoryLimit(root); err != nil {
				t.Fatal(err)
			}
			got, err := tt.config.limits()
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == 0 {
				if got.Buffers <= container {
					t.Errorf("%d bytes for buffers: that is not a share of this machine's memory", got.Buffers)
				}
				return
			}
			// Fewer connections only where the process may have few descriptors.
			if got.Buffers != tt.want/2 || got.Connections < 1 || got.Connections > tt.want/2/budget.ConnectionCost {
				t.Errorf("%+v, want half of %d for buffers, and the other for connections", got, tt.want)
			}
		})
	}
}
