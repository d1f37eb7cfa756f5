package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

func TestRemedies(t *testing.T) {
	service, passthrough := &l4.Service{}, &l4.Service{Mode: workload.LoadBalancing_PASSTHROUGH}
	routes := []l4.Route{
		{Kind: l4.ServiceWaypoint, HBONE: true, Service: service},
		{Kind: l4.WorkloadWaypoint, HBONE: true},
		{Kind: l4.Direct, HBONE: true, Service: service},
		{Kind: l4.Direct, HBONE: true, Service: passthrough},
		{Kind: l4.Direct, HBONE: true},
	}
	unreachable := func(err error) error { return errors.Join(hbone.ErrUnreachable, err) }
	status := func(code int) error { return &hbone.StatusError{Response: hbone.Response{Status: code}} }
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	for _, tt := range []struct {
		name string
		err  error
		want [5]remedy // on the routes
	}{
		{"refused", unreachable(fail(flagConnect, "connect: %w", syscall.ECONNREFUSED)), [5]remedy{anywhere, anywhere, elsewhere, none, none}},
		{"timed out", unreachable(fail(flagNetworkPolicy, "connect: %w", context.DeadlineExceeded)), [5]remedy{anywhere, anywhere, elsewhere, none, none}},
		{"not waited for", unreachable(hbone.ErrImpatient), [5]remedy{anywhere, anywhere, anywhere, none, none}},
		{"handshake cut", unreachable(fail(flagTLS, "TLS: %w", io.EOF)), [5]remedy{anywhere, anywhere, elsewhere, none, none}},
		{"handshake reset", unreachable(fail(flagTLS, "TLS: %w", reset)), [5]remedy{anywhere, anywhere, elsewhere, none, none}},
		{"somebody else", unreachable(fail(flagTLS, "TLS: want another")), [5]remedy{elsewhere, elsewhere, elsewhere, none, none}},
		{"our certificate is refused", unreachable(fail(flagTLS, "TLS: %w", &net.OpError{Op: "remote error"})), [5]remedy{}},
		{"our certificate is refused after the handshake", fmt.Errorf("%w: %w", hbone.ErrUnanswered, &net.OpError{Op: "remote error"}), [5]remedy{}},
		{"no certificate", unreachable(fail(flagIdentity, "certificate")), [5]remedy{}},
		{"revoked", unreachable(fail(flagRevoked, "peer")), [5]remedy{}},
		{"unanswered", fmt.Errorf("%w: %w", hbone.ErrUnanswered, io.EOF), [5]remedy{anywhere, anywhere, elsewhere, none, none}},
		{"cut after content was sent", fmt.Errorf("CONNECT: %w", io.EOF), [5]remedy{}},
		{"reset after content was sent", fmt.Errorf("CONNECT: %w", hbone.ErrReset), [5]remedy{}},
		{"refused stream", fmt.Errorf("%w: %w", hbone.ErrNotSent, hbone.ErrReset), [5]remedy{anywhere, anywhere, anywhere, anywhere, anywhere}},
		{"the application is gone", fail(flagConnect, "read from the application: %w", reset), [5]remedy{}},
		{"shutting down", hbone.ErrPoolClosed, [5]remedy{}},
		{"503", status(503), [5]remedy{elsewhere, elsewhere, elsewhere, none, none}},
		{"401", status(401), [5]remedy{}},
		{"403", status(403), [5]remedy{}},
		{"400", status(400), [5]remedy{}},
		{"502", status(502), [5]remedy{}},
	} {
		for i, route := range routes {
			if got := remedyFor(route, explainTunnel(route.Target, tt.err)); got != tt.want[i] {
				t.Errorf("%s, %v (route %d): %d, want %d", tt.name, route.Kind, i, got, tt.want[i])
			}
		}
	}
	plain := fail(flagConnect, "connect: %w", syscall.ECONNREFUSED)
	for _, tt := range []struct {
		route l4.Route
		want  remedy
	}{
		{l4.Route{Kind: l4.Direct, Service: service}, elsewhere},
		{l4.Route{Kind: l4.Direct, Service: passthrough}, none},
		{l4.Route{Kind: l4.Direct}, none},
		{l4.Route{Kind: l4.Passthrough}, none},
		{l4.Route{Kind: l4.Passthrough, Service: service}, none},
	} {
		if got := remedyFor(tt.route, plain); got != tt.want {
			t.Errorf("plain %v: %d, want %d", tt.route.Kind, got, tt.want)
		}
	}
}

func TestRepeatsAreBounded(t *testing.T) {
	hop, chosen := l4.Route{Kind: l4.ServiceWaypoint}, l4.Route{Kind: l4.Direct, Service: &l4.Service{}}
	take := func(until time.Time, route l4.Route, by remedy) (n int) {
		r := repeats{until: until}
		for n < 100 && r.take(route, by) {
			n++
			if p := r.pause(); p < firstPause || p > longestPause {
				t.Errorf("pause %d is %v", n, p)
			}
		}
		return n
	}
	later := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name  string
		until time.Time
		route l4.Route
		by    remedy
		want  int
	}{
		{"a waypoint, within the window", later, hop, anywhere, 100},
		{"a waypoint, after it", time.Now(), hop, anywhere, 0},
		{"only another waypoint", later, hop, elsewhere, 1},
		{"an endpoint", later, chosen, elsewhere, 1},
		{"an endpoint that says that it has not acted", later, chosen, anywhere, sureRepeats},
		{"a decision", later, hop, none, 0},
	} {
		if got := take(tt.until, tt.route, tt.by); got != tt.want {
			t.Errorf("%s: %d more attempts, want %d", tt.name, got, tt.want)
		}
	}
}
