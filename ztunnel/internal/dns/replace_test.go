package dns

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// busy is a workload's identification that takes as long as a test wants.
type busy struct {
	free    chan struct{}
	once    sync.Once
	waiting chan struct{} // an element for each query that waits
}

func newBusy() *busy { return &busy{free: make(chan struct{}), waiting: make(chan struct{}, 1000)} }

// identify is Config.Identify.
func (b *busy) identify(ctx context.Context) *l4.Workload {
	b.waiting <- struct{}{}
	select {
	case <-b.free:
		return curl()
	case <-ctx.Done():
		return nil
	}
}

func (b *busy) release() { b.once.Do(func() { close(b.free) }) }

// ask sends a query and reports whether it was answered with the address in time.
func ask(t *testing.T, pod *netx.NS, patience time.Duration) bool {
	t.Helper()
	conn, err := pod.Dial(t.Context(), "udp", netip.MustParseAddrPort("127.0.0.1:"+Port), netip.Addr{})
	if err != nil {
		t.Error(err)
		return false
	}
	defer conn.Close()
	answer, _, err := (&dns.Client{Timeout: patience}).ExchangeWithConn(new(dns.Msg).SetQuestion("web.shop.svc.cluster.local.", dns.TypeA), &dns.Conn{Conn: conn})
	return err == nil && answer.Rcode == dns.RcodeSuccess && len(answer.Answer) == 1
}

// patience is far more than an answer takes; resolvers ask again after five seconds.
const patience = 30 * time.Second

// TestTheNewestServerIsAsked: no query waits for a server that is about to be replaced, of whichever version: it may close at any moment.
func TestTheNewestServerIsAsked(t *testing.T) {
	pod := podtest.Open(t, podtest.NewPair(t).Client, 0x539)
	old := newBusy()
	first, err := Start(t.Context(), configOf(t, old.identify), Pod{Namespace: "shop", Name: "curl"}, pod)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	defer old.release()
	second, err := Start(t.Context(), configOf(t, func(context.Context) *l4.Workload { return curl() }), Pod{Namespace: "shop", Name: "curl"}, pod)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	var queries sync.WaitGroup
	for range 32 { // the kernel would share them out
		queries.Go(func() {
			if !ask(t, pod, patience) {
				t.Error("a query was not answered")
			}
		})
	}
	queries.Wait()
	if n := len(old.waiting); n > 0 {
		t.Errorf("%d queries went to the server that was there before", n)
	}
}

// TestAServerThatClosesAnswers: what was asked before is answered, though it takes a while, and what is asked meanwhile is answered by the
// server that is left.
func TestAServerThatClosesAnswers(t *testing.T) {
	pod := podtest.Open(t, podtest.NewPair(t).Client, 0x539)
	slow := newBusy()
	defer slow.release()
	config := configOf(t, slow.identify)
	config.LastAnswers = time.Hour
	leaving, err := Start(t.Context(), config, Pod{Namespace: "shop", Name: "curl"}, pod)
	if err != nil {
		t.Fatal(err)
	}
	var queries sync.WaitGroup
	for range 8 {
		queries.Go(func() {
			if !ask(t, pod, patience) {
				t.Error("what was asked before was not answered")
			}
		})
	}
	wait.Until(t, 30*time.Second, "queries under way", func() bool { return len(slow.waiting) == 8 }, nil)
	staying, err := Start(t.Context(), configOf(t, func(context.Context) *l4.Workload { return curl() }), Pod{Namespace: "shop", Name: "curl"}, pod)
	if err != nil {
		t.Fatal(err)
	}
	defer staying.Close()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		leaving.Close()
	}()
	for range 32 {
		if !ask(t, pod, patience) {
			t.Fatal("a query was not answered while a server closes")
		}
	}
	slow.release()
	queries.Wait()
	<-closed
}

// TestAServerClosesAlthoughNobodyAnswers: the resolvers behind it may be away.
func TestAServerClosesAlthoughNobodyAnswers(t *testing.T) {
	pod := podtest.Open(t, podtest.NewPair(t).Client, 0x539)
	never := newBusy()
	config := configOf(t, never.identify)
	config.LastAnswers = 10 * time.Millisecond
	server, err := Start(t.Context(), config, Pod{Namespace: "shop", Name: "curl"}, pod)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan bool, 1)
	go func() { answered <- ask(t, pod, patience) }()
	<-never.waiting
	server.Close()
	if <-answered {
		t.Error("answered with an address that was never found out")
	}
}
