package nodeagent

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
	"github.com/isthmus-mesh/isthmus/cni/redirect"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
)

// earlyBed is a bed whose agent redirects pods that start by sklookup, with the proxy's listeners in the pod.
func earlyBed(t *testing.T) (*bed, string) {
	t.Helper()
	b := newBed(t)
	dir := nettest.PinDir(t)
	b.early = func() redirect.Early {
		backend, err := sklookup.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(backend.Close)
		return backend
	}
	b.stop()
	b.start()
	return b, dir
}

func (b *bed) listen() (stop func()) {
	b.t.Helper()
	ztunnel := nettest.Socket{Mark: 0x539, Transparent: true}
	var list []interface{ Close() error }
	for _, addr := range []string{":15001", ":15006", "127.0.0.1:15053"} {
		list = append(list, nettest.ListenAs(b.t, b.ns, addr, ztunnel))
	}
	list = append(list, nettest.ListenRedirected(b.t, b.ns, "127.0.0.1:15053", ztunnel))
	return func() {
		for _, l := range list {
			l.Close()
		}
	}
}

// redirection is what the agent says of its pod.
func (b *bed) redirection() string {
	for _, s := range b.agent.Statuses() {
		if s.Enrolled {
			return s.Redirection
		}
	}
	return ""
}

// differences are those between the kernel and the plan, by sklookup.
func (b *bed) differences() int {
	b.t.Helper()
	d, err := b.agent.cfg.Backend.Early.Inspect(b.ns, plan.Plan(plan.Pod{}, plan.DefaultConfig()))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(d)
}

func (b *bed) add() {
	b.t.Helper()
	b.objects(ModeAmbient)
	if w := b.ask(pluginapi.PathAdd); w.Code != http.StatusOK {
		b.t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestPodsThatStartAreRedirectedEarly(t *testing.T) {
	b, dir := earlyBed(t)
	b.agent.Synced()
	b.listen()
	b.add()
	if b.redirection() != redirect.SKLookup || b.differences() != 0 || b.redirected() {
		t.Fatalf("redirection %q with %d differences, by nft %t", b.redirection(), b.differences(), b.redirected())
	}
	// The agent starts again.
	b.stop()
	b.start()
	b.objects(ModeAmbient)
	b.agent.Synced()
	b.eventually("enrolled again", func() bool { return b.redirection() == redirect.SKLookup && b.differences() == 0 })
	// It leaves the mesh, and comes back while it runs.
	b.objects(ModeNone)
	b.eventually("un-enrolled", func() bool { return b.redirection() == "" && !b.served() })
	b.objects(ModeAmbient)
	b.eventually("enrolled while it runs", func() bool { return b.redirection() == redirect.NFT && b.redirected() })
	// It ends.
	if w := b.ask(pluginapi.PathDel); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			t.Errorf("pins are left: %s", filepath.Join(dir, e.Name()))
		}
	}
}

// A new proxy has other listeners.
func TestTheNextProxyIsWelcome(t *testing.T) {
	b, _ := earlyBed(t)
	b.agent.Synced()
	stop := b.listen()
	b.add()
	stop()
	b.listen()
	if b.differences() == 0 {
		t.Fatal("nobody notices that the listeners are others")
	}
	b.agent.Taken("u1", nil)
	b.eventually("redirected to the next proxy", func() bool { return b.differences() == 0 })
	if b.redirection() != redirect.SKLookup {
		t.Errorf("redirection %q", b.redirection())
	}
}

// What the kernel cannot do for a pod is done by the usual back end, and counted.
func TestAPodThatCannotBeRedirectedEarlyGetsTheUsual(t *testing.T) {
	b, _ := earlyBed(t)
	b.agent.Synced()
	b.add() // nobody listens
	if b.redirection() != redirect.NFT || !b.redirected() {
		t.Errorf("redirection %q, by nft %t", b.redirection(), b.redirected())
	}
	if got := b.fallbacks("listener"); got != 1 {
		t.Errorf("counted %v", got)
	}
}

// A node that goes back to nft rewrites the rules of its pods.
func TestEarlyRedirectionIsTakenBack(t *testing.T) {
	b, _ := earlyBed(t)
	b.agent.Synced()
	b.listen()
	b.add()
	b.stop()
	early := b.early()
	b.early, b.before = nil, []redirect.Backend{early}
	b.start()
	b.objects(ModeAmbient)
	b.agent.Synced()
	b.eventually("redirected by nft", func() bool { return b.redirection() == redirect.NFT && b.redirected() })
	b.eventually("nothing is left", func() bool {
		d, err := early.Inspect(b.ns, plan.Rules{})
		return err == nil && len(d) == 0
	})
}

func (b *bed) fallbacks(reason string) float64 {
	return testutil.ToFloat64(b.agent.cfg.Metrics.fallbacks.WithLabelValues(reason))
}

// A pod with machines behind its interfaces is served by the usual back end, from its start, or from when it says so.
func TestAPodWithVirtualInterfacesGetsTheUsual(t *testing.T) {
	b, _ := earlyBed(t)
	b.agent.Synced()
	b.listen()
	b.add()
	if b.redirection() != redirect.SKLookup {
		t.Fatalf("redirection %q", b.redirection())
	}
	b.annotated = map[string]string{plan.AnnotationReroute: "net1,veth+"}
	b.objects(ModeAmbient)
	b.eventually("redirected by nft", func() bool {
		d, err := nft.Backend{}.Inspect(b.ns, plan.Plan(plan.Pod{Reroute: "net1"}, plan.DefaultConfig()))
		return err == nil && len(d) == 0 && b.redirection() == redirect.NFT
	})
	if got := b.fallbacks("network"); got != 1 {
		t.Errorf("counted %v", got)
	}
	if log := b.logged.String(); strings.Count(log, plan.AnnotationReroute) < 2 || !strings.Contains(log, "wildcards") || !strings.Contains(log, "shop/web") {
		t.Errorf("the log says\n%s", log)
	}
}
