package cgroup_test

import (
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/isthmus-mesh/isthmus/pkg/cgroup"
)

func files(contents map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range contents {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestMemoryLimit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
		ok    bool
	}{
		{"no control groups", nil, 0, false},
		{"version 2 in a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20, true},
		{"version 2 without a limit", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0, false},
		{"version 2, the pod's limit is lower", map[string]string{
			"proc/self/cgroup": "0::/pod/container\n", "sys/fs/cgroup/pod/container/memory.max": "2097152\n", "sys/fs/cgroup/pod/memory.max": "1048576\n",
		}, 1 << 20, true},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/a/b\n1:name=systemd:/a\n",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes":    "4194304\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":        "9223372036854771712\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":      "9223372036854771712\n",
			"sys/fs/cgroup/cpu,cpuacct/a/memory.limit_in_bytes": "1\n",
		}, 4 << 20, true},
		{"version 1 with the host's path", map[string]string{
			"proc/self/cgroup": "4:memory:/kubepods/burstable/pod1/c1\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "4194304\n",
		}, 4 << 20, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := cgroup.MemoryLimit(files(tt.files))
			if err != nil || ok != tt.ok || ok && got != tt.want {
				t.Errorf("%d, %v, %v; want %d, %v", got, ok, err, tt.want, tt.ok)
			}
		})
	}
	if _, _, err := cgroup.MemoryLimit(files(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "much"})); err == nil {
		t.Error("nonsense was read")
	}
}

func TestApplyMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	root := files(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000000000\n"})
	if got, err := cgroup.ApplyMemoryLimit(root); err != nil || got != 900_000_000 || debug.SetMemoryLimit(-1) != 900_000_000 {
		t.Error(got, err)
	}
	debug.SetMemoryLimit(500_000_000)
	if got, err := cgroup.ApplyMemoryLimit(root); err != nil || got != 500_000_000 {
		t.Error(got, err)
	}
}
