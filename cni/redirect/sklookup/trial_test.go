package sklookup

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// TestTheTrialNotices: a kernel that does otherwise than it should is made up here, by taking away what does it.
func TestTheTrialNotices(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	b, err := Open(mount + "/mesh")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ns, err := trialNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	proxy, err := trialProxy(ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range proxy {
		defer l.Close()
	}
	const patience = 100 * time.Millisecond
	if err := redirected(ns, proxy[0], patience); err == nil {
		t.Error("a connection is redirected by nothing")
	}
	if err := b.Apply(ns, plan.Plan(plan.Pod{}, plan.Config{})); err != nil {
		t.Fatal(err)
	}
	if err := redirected(ns, proxy[0], trialPatience); err != nil {
		t.Error(err)
	}
	if err := redirected(ns, proxy[1], patience); err == nil {
		t.Error("the inbound listener gets what goes out")
	}
	if err := b.Forget(ns); err != nil {
		t.Fatal(err)
	}
	if err := redirected(ns, proxy[0], patience); err == nil {
		t.Error("a connection is redirected by policy rules alone")
	}
}
