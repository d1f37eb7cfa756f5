package nodeagent

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
)

// descriptors counts those of this process that point to a network namespace.
func descriptors(t *testing.T, ns *os.File) int {
	t.Helper()
	want, err := netns.Identify(ns)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue // closed meanwhile
		}
		if got, ok := info.Sys().(*syscall.Stat_t); ok && (netns.ID{Dev: uint64(got.Dev), Ino: got.Ino}) == want {
			n++
		}
	}
	return n
}

// askAs sends a request of one of the pod's sandboxes.
func (b *bed) askAs(path, container string, ns *os.File, ip string) *httptest.ResponseRecorder {
	b.t.Helper()
	body, err := json.Marshal(pluginapi.Request{
		Netns: "/proc/self/fd/" + itoa(ns.Fd()), Ifname: "eth0", IPs: []string{ip}, ContainerID: container, PodName: "web", PodNamespace: "shop", PodUID: "u1",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	b.agent.Handler().ServeHTTP(w, httptest.NewRequestWithContext(b.t.Context(), http.MethodPost, path, bytes.NewReader(body)))
	return w
}

// keeps checks how many descriptors of a pod's network namespace the agent has; the test itself has one more.
func (b *bed) keeps(when string, ns *os.File, want int) {
	b.t.Helper()
	if got := descriptors(b.t, ns) - 1; got != want {
		b.t.Errorf("%s: %d descriptors of the pod's network namespace, want %d", when, got, want)
	}
}

func (b *bed) mustAsk(path, container string, ns *os.File, ip string) {
	b.t.Helper()
	if w := b.askAs(path, container, ns, ip); w.Code != http.StatusOK {
		b.t.Fatalf("%s of %s: %d %s", path, container, w.Code, w.Body)
	}
}

func TestDelClosesTheNetworkNamespace(t *testing.T) {
	for mode, enrolled := range map[string]bool{ModeAmbient: true, ModeNone: false} {
		t.Run(mode, func(t *testing.T) {
			b := newBed(t)
			b.objects(mode)
			b.agent.Synced()
			b.keeps("before", b.ns, 0)
			for range 3 {
				b.mustAsk(pluginapi.PathAdd, "c1", b.ns, "10.5.0.2")
				if b.served() != enrolled {
					t.Errorf("served %t", b.served())
				}
				b.keeps("while it runs", b.ns, 1)
				b.mustAsk(pluginapi.PathDel, "c0", b.ns, "10.5.0.2")
				b.keeps("after the end of another sandbox", b.ns, 1)
				b.mustAsk(pluginapi.PathDel, "c1", b.ns, "10.5.0.2")
				b.keeps("after its end", b.ns, 0)
				b.mustAsk(pluginapi.PathDel, "c1", b.ns, "10.5.0.2")
			}
		})
	}
}

func TestAnAddThatFailsClosesTheNetworkNamespace(t *testing.T) {
	b := newBed(t)
	b.world.away = true
	b.objects(ModeAmbient)
	b.agent.Synced()
	if w := b.askAs(pluginapi.PathAdd, "c1", b.ns, "10.5.0.2"); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "no ztunnel") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.keeps("after an ADD that failed", b.ns, 0)
	id, err := netns.Identify(b.peer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newRecord(savedPod{Netns: b.path, Identity: id}); err == nil {
		t.Error("another namespace at the same path was taken")
	}
	b.keeps("after a saved pod of another namespace", b.ns, 0)
}

func TestASecondSandboxTakesTheFirstOnesPlace(t *testing.T) {
	b := newBed(t)
	second, router := nettest.New(t), nettest.New(t)
	nettest.Link(t, second, router, []string{"10.6.0.2/24"}, []string{"10.6.0.1/24"})
	b.objects(ModeAmbient)
	b.agent.Synced()
	b.mustAsk(pluginapi.PathAdd, "c1", b.ns, "10.5.0.2")
	b.mustAsk(pluginapi.PathAdd, "c2", second, "10.6.0.2")
	b.keeps("of the first", b.ns, 0)
	b.keeps("of the second", second, 1)
	b.mustAsk(pluginapi.PathDel, "c1", b.ns, "10.5.0.2")
	if !b.served() {
		t.Error("the end of the first took the second out of the mesh")
	}
	b.world.mu.Lock()
	if len(b.world.closed) != 0 || len(b.world.probed) != 1 || b.world.probed[0].String() != "10.6.0.2" {
		t.Errorf("closed while the proxy's snapshot had it: %v; the node's set has %v", b.world.closed, b.world.probed)
	}
	b.world.mu.Unlock()
	b.mustAsk(pluginapi.PathDel, "c2", second, "10.6.0.2")
	b.keeps("after its end", second, 0)
	if b.served() {
		t.Error("served after its end")
	}
}
