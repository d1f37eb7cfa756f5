package discover_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/discover"
	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
)

const uid = "7e0dd8a5-3b1f-4c55-9d13-0c1f6a1f2b3c"

func TestPodUID(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	for cgroup, want := range map[string]string{
		"0::/kubepods/burstable/pod" + uid + "/3f8c0a\n":                                                                                                             uid,
		"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-3f8c.scope\n":                                          uid,
		"0::/kubepods.slice/kubepods-pod" + under + ".slice/crio-3f8c.scope/container\n":                                                                             uid,
		"0::/../../kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + under + ".slice/cri-containerd-a.scope": uid,
		"12:pids:/docker/abc/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + under + ".slice\n1:name=systemd:/x\n0::/\n":                                uid,
		"5:cpu:/user.slice\n1:name=systemd:/kubepods/besteffort/pod" + uid + "/1\n":                                                                                  uid,
		"0::/kubepods/burstable/poda0b1c2d3e4f5061728394a5b6c7d8e9f/1":                                                                                               "a0b1c2d3e4f5061728394a5b6c7d8e9f",
		"0::/kubepods.slice/kubepods-burstable.slice\n":                                                                                                              "",
		"0::/user.slice/pod" + uid + "/1":                                                                                                                            "",
		"0::/kubepods/tripod" + uid:                                                                                                                                  "",
		"0::/kubepods/pod-not-a-uid-at-all-but-about-as-long":                                                                                                        "",
		"garbage": "", "": "",
	} {
		if got := discover.PodUID(cgroup); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
}

type process struct {
	cgroup string
	ns     *os.File
}

// procfs is a directory that looks like one: a process per entry, with the cgroup and the network namespace given.
func procfs(t *testing.T, processes map[string]process) string {
	t.Helper()
	dir := t.TempDir()
	for pid, p := range processes {
		if err := os.MkdirAll(filepath.Join(dir, pid, "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, pid, "cgroup"), []byte(p.cgroup), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/self/fd/"+fd(p.ns), filepath.Join(dir, pid, "ns/net")); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func fd(f *os.File) string {
	n := f.Fd()
	var out []byte
	for ; n > 0; n /= 10 {
		out = append([]byte{byte('0' + n%10)}, out...)
	}
	return string(out)
}

func TestOnlyThePodsOwnNamespaceIsTaken(t *testing.T) {
	host, pod, other, router := nettest.New(t), nettest.New(t), nettest.New(t), nettest.New(t)
	nettest.Link(t, pod, router, []string{"10.5.0.2/24", "fd05::2/64"}, []string{"10.5.0.1/24"})
	nettest.Link(t, other, host, []string{"10.6.0.2/24"}, []string{"10.6.0.1/24"})
	hostID, err := netns.Identify(host)
	if err != nil {
		t.Fatal(err)
	}
	podID, err := netns.Identify(pod)
	if err != nil {
		t.Fatal(err)
	}
	group := "0::/kubepods/pod" + uid + "/1"
	ip := netip.MustParseAddr("10.5.0.2")
	for name, tt := range map[string]struct {
		processes map[string]process
		ip        netip.Addr
		problem   string
	}{
		"its pause process":              {map[string]process{"12": {group, pod}}, ip, ""},
		"by its second address":          {map[string]process{"12": {group, pod}}, netip.MustParseAddr("fd05::2"), ""},
		"one that went to the node":      {map[string]process{"11": {group, host}, "12": {group, pod}}, ip, ""},
		"only one that went to the node": {map[string]process{"11": {group, host}}, ip, "node's network namespace"},
		"one that went to another pod":   {map[string]process{"11": {group, other}, "12": {group, pod}}, ip, ""},
		"only one in another pod":        {map[string]process{"11": {group, other}}, ip, "has addresses [10.6.0.2"},
		"another pod's process":          {map[string]process{"11": {"0::/kubepods/pod" + strings.Replace(uid, "7e", "7f", 1), pod}}, ip, discover.ErrNoProcess.Error()},
		"none":                           {nil, ip, discover.ErrNoProcess.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			f := discover.Finder{Proc: procfs(t, tt.processes), Host: hostID}
			found, problems := f.Find([]discover.Wanted{{UID: uid, IPs: []netip.Addr{tt.ip}}})
			switch {
			case tt.problem == "" && (found[uid].Identity != podID || len(problems) != 0):
				t.Errorf("%v, %v", found, problems)
			case tt.problem != "" && (len(found) != 0 || problems[uid] == nil || !strings.Contains(problems[uid].Error(), tt.problem)):
				t.Errorf("%v, %v", found, problems)
			}
		})
	}
	_, problems := discover.Finder{Proc: "/no/such/dir"}.Find([]discover.Wanted{{UID: uid}})
	if !errors.Is(problems[uid], os.ErrNotExist) {
		t.Error(problems)
	}
}
