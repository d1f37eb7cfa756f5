package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// long is a window that no test reaches, brief one that ends soon.
const long, brief = time.Minute, 200 * time.Millisecond

func TestAnotherWaypointInstanceIsTried(t *testing.T) {
	goAway := h2.AppendGoAway(nil, 0, h2.NoError, "")
	refusal := h2.AppendRSTStream(nil, 1, h2.RefusedStream)
	for _, tt := range []struct {
		name  string
		first func(asked *atomic.Int32) *hop // nil listens not
	}{
		{"refused", nil},
		{"ended before TLS", func(*atomic.Int32) *hop { return &hop{raw: func(net.Conn) {}} }},
		{"silent", func(*atomic.Int32) *hop { return &hop{raw: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }} }},
		{"another identity", func(*atomic.Int32) *hop { return &hop{identity: "imposter"} }},
		{"ended after TLS", func(*atomic.Int32) *hop { return &hop{identity: "first", secure: func(net.Conn) {}} }},
		{"going away", func(n *atomic.Int32) *hop { return &hop{identity: "first", secure: afterConnect(n, 0, goAway)} }},
		{"refusing the stream", func(n *atomic.Int32) *hop { return &hop{identity: "first", secure: afterConnect(n, 0, refusal)} }},
		{"without configuration", func(*atomic.Int32) *hop { return &hop{identity: "first", status: 503} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newHopBed(t, long)
			b.endpoint(t, "second", secondIP, 0)
			if tt.first != nil {
				b.serve(t, firstIP, tt.first(new(atomic.Int32)))
			}
			second := &hop{identity: "second"}
			b.serve(t, secondIP, second)
			conn := b.open(t, hopVIP)
			if _, err := conn.Write([]byte("content")); err != nil {
				t.Fatal(err)
			}
			if tt.name == "ended after TLS" {
				// Whether the content went along is by chance, and with it whether there may be another attempt.
				got, err := io.ReadAll(io.LimitReader(conn, int64(len("second\ncontent"))))
				if s := string(got); s != "second\ncontent" && s != "" {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			b.log.Wait(t, "connecting again", "attempt=2")
			greeting(t, conn, "second\ncontent")
			wait.Until(t, 20*time.Second, "the connection is counted", func() bool { return b.count(t, "istio_tcp_connections_closed_total") == 1 }, nil)
			if opened, failed := b.count(t, "istio_tcp_connections_opened_total"), b.count(t, "istio_tcp_connections_failed_total"); opened != 1 || failed != 0 {
				t.Errorf("%d opened, %d failed, want one connection", opened, failed)
			}
			b.log.Wait(t, "connection complete", `dst.workload="second"`)
			if strings.Count(b.log.String(), "connection complete") != 1 {
				t.Error("the connection is not logged once")
			}
			if second.asked.Load() != 1 {
				t.Errorf("%d CONNECTs", second.asked.Load())
			}
		})
	}
}

func TestTheOnlyWaypointInstanceIsTriedAgain(t *testing.T) {
	b := newHopBed(t, long)
	conn := b.open(t, hopVIP)
	if _, err := conn.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	b.log.Wait(t, "connecting again", "attempt=4")
	_, listed := b.proxies[0].Connections()
	if len(listed) != 1 || listed[0].ActualDst.String() != firstIP+":15008" {
		t.Errorf("%v", listed)
	}
	b.serve(t, firstIP, &hop{identity: "first"})
	greeting(t, conn, "first\ncontent")
}

// A replacement is used as soon as the control plane tells of it.
func TestANewWaypointInstanceIsTried(t *testing.T) {
	b := newHopBed(t, long)
	b.serve(t, secondIP, &hop{identity: "second"})
	conn := b.open(t, hopVIP)
	b.log.Wait(t, "connecting again")
	b.endpoint(t, "second", secondIP, 0)
	greeting(t, conn, "second\n")
}

// What the waypoint may have passed on is not sent twice.
func TestContentIsNotRepeated(t *testing.T) {
	b := newHopBed(t, long)
	conn := b.open(t, hopVIP)
	if _, err := conn.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	b.log.Wait(t, "connecting again", "attempt=3") // the content is known by now
	first := &hop{identity: "first"}
	first.secure = afterConnect(&first.asked, len("content"), nil)
	b.serve(t, firstIP, first)
	if got, err := io.ReadAll(conn); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v; want an end", got, err)
	}
	if n := first.asked.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
	b.log.Wait(t, "connection complete", "error=") // what never was open has not ended as others do
}

func TestDecisionsAreFinal(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 431, 500, 502} {
		b := newHopBed(t, long)
		b.endpoint(t, "second", secondIP, 0)
		first, second := &hop{identity: "first", status: status}, &hop{identity: "second"}
		b.serve(t, firstIP, first)
		b.serve(t, secondIP, second)
		b.refused(t, hopVIP)
		if first.asked.Load() != 1 || second.connects.Load() != 0 || strings.Contains(b.log.String(), "connecting again") {
			t.Errorf("%d: asked %d times, %d connections elsewhere", status, first.asked.Load(), second.connects.Load())
		}
	}
}

// A hop that says 503 has one alternative, and is not asked again.
func TestUnavailableHopsAreAskedOnce(t *testing.T) {
	for _, ip := range []string{hopVIP, directVIP} {
		b := newHopBed(t, long)
		first, second := &hop{identity: "first", status: 503}, &hop{identity: "second", status: 503}
		b.serve(t, firstIP, first)
		b.refused(t, ip)
		if first.asked.Load() != 1 {
			t.Errorf("the only one was asked %d times", first.asked.Load())
		}
		b.endpoint(t, "second", secondIP, 0)
		b.serve(t, secondIP, second)
		b.refused(t, ip)
		if first.asked.Load() != 2 || second.asked.Load() != 1 {
			t.Errorf("%s: asked %d and %d times, want 2 and 1", ip, first.asked.Load(), second.asked.Load())
		}
	}
}

func TestAttemptsEnd(t *testing.T) {
	var b *hopBed
	for window := brief; ; window *= 4 { // of which the first attempt must leave something
		b = newHopBed(t, window)
		b.refused(t, hopVIP)
		b.log.Wait(t, "connection complete", "connection refused")
		if strings.Contains(b.log.String(), "connecting again") {
			break
		}
		if window > long {
			t.Fatal("there is no second attempt")
		}
	}
	if opened, failed := b.count(t, "istio_tcp_connections_opened_total"), b.count(t, "istio_tcp_connections_failed_total"); opened != 0 || failed != 1 {
		t.Errorf("%d opened, %d failed, want one failure", opened, failed)
	}
}

func TestAttemptsEndWithTheClient(t *testing.T) {
	b := newHopBed(t, long)
	conn := b.open(t, hopVIP)
	b.log.Wait(t, "connecting again")
	conn.SetLinger(0)
	conn.Close()
	wait.Until(t, long/2, "the attempts end", func() bool {
		_, left := b.proxies[0].Connections()
		return len(left) == 0
	}, nil)
}

// An endpoint of a service has one alternative; an address that the client chose has none.
func TestEndpointsHaveOneAlternative(t *testing.T) {
	b := newHopBed(t, long)
	b.endpoint(t, "second", secondIP, 0)
	b.refused(t, directVIP)
	b.log.Wait(t, "connection complete")
	if n := strings.Count(b.log.String(), "connecting again"); n != 1 {
		t.Errorf("%d further attempts where nobody listens, want 1", n)
	}
	b.serve(t, secondIP, &hop{identity: "second"})
	greeting(t, b.open(t, directVIP), "second\n")
}

func TestAddressesHaveNoAlternative(t *testing.T) {
	b := newHopBed(t, long)
	b.endpoint(t, "second", secondIP, 0)
	b.serve(t, secondIP, &hop{identity: "second"})
	b.refused(t, firstIP)
	b.log.Wait(t, "connection complete")
	if strings.Contains(b.log.String(), "connecting again") {
		t.Error("tried again")
	}
}

// A waypoint whose instances are all unhealthy is waited for, for a while.
func TestAHealthyWaypointInstanceIsWaitedFor(t *testing.T) {
	sick := func(b *hopBed, status workload.WorkloadStatus) {
		w := b.instance("first", firstIP, 5)
		w.GetWorkload().Status = status
		b.apply(t, w)
	}
	b := newHopBed(t, long)
	b.serve(t, firstIP, &hop{identity: "first"})
	sick(b, workload.WorkloadStatus_UNHEALTHY)
	conn := b.open(t, hopVIP)
	sick(b, workload.WorkloadStatus_HEALTHY)
	greeting(t, conn, "first\n")

	b = newHopBed(t, brief)
	sick(b, workload.WorkloadStatus_UNHEALTHY)
	b.refused(t, hopVIP)
	b.log.Wait(t, "connection failed", "no healthy upstream")
}
