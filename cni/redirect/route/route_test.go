package route_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/route"
)

// inContainer is set in the process that has mounts of its own, with /proc/sys as containers see it.
const inContainer = "ROUTE_TEST_IN_CONTAINER"

func TestSysctlsAreSetFromAContainer(t *testing.T) {
	if os.Getenv(inContainer) == "" {
		self := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		self.Env = append(os.Environ(), inContainer+"=1")
		self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if out, err := self.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, m := range []struct {
		source, target string
		flags          uintptr
	}{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE}, {"/proc/sys", "/proc/sys", unix.MS_BIND}, {"", "/proc/sys", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY},
	} {
		if err := unix.Mount(m.source, m.target, "", m.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	ns := nettest.New(t)
	rules := plan.Rules{Sysctls: plan.Plan(plan.Pod{}, plan.DefaultConfig()).Sysctls}
	if len(rules.Sysctls) == 0 {
		t.Fatal("nothing to set")
	}
	rules.Sysctls[0].Optional = false
	if drift, err := route.Inspect(ns, rules); err != nil || len(drift) != 1 {
		t.Fatalf("before: %q, %v", drift, err)
	}
	if err := route.Apply(ns, rules); err != nil {
		t.Fatal(err)
	}
	if drift, err := route.Inspect(ns, rules); err != nil || len(drift) != 0 {
		t.Errorf("afterwards: %q, %v", drift, err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_migrate_req", []byte("0"), 0); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("the mounts of the others have changed: %v", err)
	}
}
