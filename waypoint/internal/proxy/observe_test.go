package proxy

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// matching compares what records show of requests and responses.
type matching struct{ compared, wrong atomic.Int64 }

func (*matching) Opened(*Record)   {}
func (*matching) Progress(*Record) {}
func (m *matching) Ended(r *Record) {
	if r.Kind != KindRequest || r.Response == nil {
		return
	}
	m.compared.Add(1)
	if r.Response.Value("x-path") != r.Path || r.ContentLength != int64(len(r.Path)) {
		m.wrong.Add(1)
	}
}

func TestRecordsShowTheirOwnResponse(t *testing.T) {
	b := newBed(t)
	m := &matching{}
	b.server.Close()
	b.server = New(Deps{Certs: b.identity("waypoint"), Observer: m, Log: testLog(t)})
	t.Cleanup(func() { b.server.Close() })
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-path", r.URL.Path)
		fmt.Fprint(w, r.URL.Path)
	})
	b.apply(pod)
	c := b.client("productpage", false)
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			for n := range 50 {
				path := fmt.Sprintf("/%d/%d", i, n)
				if status, body, err := try(t.Context(), c, http.MethodGet, path, nil); err != nil || status != 200 || body != path {
					t.Errorf("%d %q %v", status, body, err)
				}
			}
		})
	}
	work.Wait()
	until(t, "all are told", func() bool { return m.compared.Load() == 400 })
	if m.wrong.Load() > 0 {
		t.Errorf("%d records show another request's response", m.wrong.Load())
	}
}

func TestOneSourceCannotHoldAllHandshakes(t *testing.T) {
	b := newBedWith(t, Limits{DrainGrace: 50 * time.Millisecond, MaxHandshakes: 16, HandshakeTimeout: time.Minute})
	b.apply()
	for range 40 {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 94, 0, 1)}}).Dial("tcp", b.server.Address("connect_terminate").String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	until(t, "what is too much is turned away", func() bool { return b.server.Stats().HandshakeErrors >= 38 })
	start := time.Now()
	b.dial("productpage")
	if time.Since(start) > b.server.deps.Limits.HandshakeTimeout/2 {
		t.Error("another source had to wait")
	}
}
