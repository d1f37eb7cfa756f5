package hbone

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

func TestMeter(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var m meter
	for _, step := range []struct {
		ms             int
		sent, received uint64
		want           float64
	}{
		{0, 5000, 0, 0},     // nothing to compare with
		{50, 900_000, 0, 0}, // too early to say
		{1000, 1_005_000, 0, 1e6},
		{1050, 9_000_000, 0, 1e6},              // still what was known
		{2000, 1_005_000, 2_000_000, 2e6},      // the other direction carries more
		{12_000, 1_005_000, 2_000_000, 0},      // and nothing since
		{12_100, 1_005_000, 12_000_000, 100e6}, // a tenth of a second is enough
	} {
		if got := m.sample(at(step.ms), step.sent, step.received); got != step.want {
			t.Errorf("after %d ms: %v, want %v", step.ms, got, step.want)
		}
	}
}

// loadBed is a pool on a clock that stands still, before a server that echoes.
type loadBed struct {
	pool   *Pool
	key    PoolKey
	clock  atomic.Int64
	refuse atomic.Bool
	dials  atomic.Int32
	served sync.WaitGroup
}

func newLoadBed(t *testing.T, cfg PoolConfig) *loadBed {
	b := &loadBed{key: PoolKey{Source: "a", Dest: netip.MustParseAddrPort("10.0.0.1:15008")}}
	b.clock.Store(1)
	b.pool = NewPool(func(context.Context, PoolKey) (net.Conn, error) {
		b.dials.Add(1)
		if b.refuse.Load() {
			return nil, errors.New("nobody there")
		}
		near, far := carrier(t)
		b.served.Go(func() { _ = ServeConn(context.Background(), far, handlerFunc(echo), ServerConfig{}) })
		return near, nil
	}, cfg)
	b.pool.now = func() time.Time { return time.Unix(b.clock.Load(), 0) }
	t.Cleanup(func() {
		b.pool.Close()
		b.served.Wait()
	})
	return b
}

func (b *loadBed) open(t *testing.T) *Stream {
	t.Helper()
	s, _, err := b.pool.Connect(deadline(t), &b.key, &Request{Authority: "a:1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// second moves n bytes over the stream and back within a second of the pool's clock.
func (b *loadBed) second(t *testing.T, s *Stream, n int) {
	t.Helper()
	if err := move(s, n); err != nil {
		t.Fatal(err)
	}
	b.clock.Add(1)
}

// move sends n bytes and takes them back.
func move(s *Stream, n int) error {
	sent := make(chan error, 1)
	go func() {
		_, err := s.Write(make([]byte, n))
		sent <- err
	}()
	buf := make([]byte, 32<<10)
	for got := 0; got < n; {
		k, err := s.Read(buf)
		got += k
		if err != nil {
			return err
		}
	}
	return <-sent
}

func (b *loadBed) conns(t *testing.T, n int) {
	t.Helper()
	wait.Until(t, 30*time.Second, "the pool dials", func() bool { return len(b.pool.Connections()) == n }, nil)
}

func TestBusyConnectionsGetCompany(t *testing.T) {
	b := newLoadBed(t, PoolConfig{BusyConns: 3, BusyRate: 100_000})
	first := b.open(t)
	b.open(t) // the meter has begun
	b.second(t, first, 90_000)
	if s := b.open(t); s.c != first.c || b.dials.Load() != 1 {
		t.Fatal("one that is not busy got company")
	}
	b.second(t, first, 110_000)
	if s := b.open(t); s.c != first.c {
		t.Error("who finds a connection that is busy waited for another")
	}
	b.conns(t, 2)
	second := b.open(t)
	if second.c == first.c {
		t.Fatal("a stream on the busy one of two connections")
	}
	b.open(t)
	// Both are busy: there is a third. Then the limit is reached.
	for _, n := range []int{3, 3} {
		if err := move(first, 200_000); err != nil {
			t.Fatal(err)
		}
		b.second(t, second, 200_000)
		b.open(t)
		b.conns(t, n)
	}
	if n := b.dials.Load(); n != 3 {
		t.Errorf("%d dials for 3 connections", n)
	}
}

func TestASpareConnectionThatFailsHurtsNobody(t *testing.T) {
	b := newLoadBed(t, PoolConfig{BusyConns: 3, BusyRate: 100_000})
	first := b.open(t)
	b.open(t)
	b.refuse.Store(true)
	b.second(t, first, 200_000)
	b.open(t)
	settled := func() bool {
		b.pool.mu.Lock()
		defer b.pool.mu.Unlock()
		h := b.pool.hosts[b.key]
		return h.dialing == nil && !h.spareAfter.IsZero()
	}
	wait.Until(t, 30*time.Second, "the spare dial fails", settled, nil)
	for range 3 { // within the pause
		b.second(t, first, 200_000)
		b.open(t)
	}
	if n := b.dials.Load(); n != 2 {
		t.Errorf("%d dials, want one in vain", n)
	}
	b.refuse.Store(false)
	b.clock.Add(int64(spareRetry / time.Second))
	b.second(t, first, 200_000*30)
	b.open(t)
	b.conns(t, 2)
}

func TestAnIdlePoolStaysSmall(t *testing.T) {
	b := newLoadBed(t, PoolConfig{BusyConns: 3, BusyRate: 1})
	for range 20 {
		b.open(t)
		b.clock.Add(1)
	}
	if n := b.dials.Load(); n != 1 {
		t.Errorf("%d connections for streams that carry nothing", n)
	}
}
