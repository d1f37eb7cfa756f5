package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// h2specFixture is what h2spec's requests need: one route that takes all of them, at a gateway. The waypoint needs none.
const h2specFixture = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bookinfo-gateway, namespace: default}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: default}
spec: {parentRefs: [{name: bookinfo-gateway}], rules: [{backendRefs: [{name: httpbin, port: 8000}]}]}
`

// h2specSummary is the last line of the tester.
var h2specSummary = regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`)

// h2spec runs the HTTP/2 conformance tester against the proxies: through tunnels against the waypoint, directly against the gateway.
// The last line counts the waypoint's.
func (b *testbed) h2spec(ctx context.Context, out io.Writer) (bool, error) {
	f := &fixture{name: "h2spec", config: []string{h2specFixture}}
	if err := b.apply(ctx, f); err != nil {
		return false, err
	}
	well := true
	for _, way := range []string{"gateway", "waypoint"} {
		if err := f.unready[way]; err != nil {
			return false, err
		}
		p := b.proxies[way][0]
		address, closeRelay, err := b.h2specAddress(ctx, p, way)
		if err != nil {
			return false, err
		}
		good, err := b.runH2spec(ctx, out, way, address)
		closeRelay()
		if err != nil {
			return false, err
		}
		if err := p.alive(); err != nil {
			return false, err
		}
		well = well && good
	}
	return well, nil
}

// runH2spec runs the tester against one address and prints what it has found. Tests that are skipped have not passed.
func (b *testbed) runH2spec(ctx context.Context, out io.Writer, way string, address net.Addr) (bool, error) {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return false, err
	}
	tool, err := filepath.Abs(b.options.h2spec)
	if err != nil {
		return false, err
	}
	text, failed := exec.CommandContext(ctx, tool, "-h", host, "-p", port, "-P", "/h2spec", "-o", "5").CombinedOutput()
	found := h2specSummary.FindSubmatch(text)
	if found == nil {
		return false, fmt.Errorf("h2spec against the %s says %w: %s", way, errors.Join(failed, errors.New("no result")), bytes.TrimSpace(text))
	}
	count := func(i int) int { n, _ := strconv.Atoi(string(found[i])); return n }
	good := failed == nil && count(1) > 0 && count(2) == count(1)
	if !good {
		fmt.Fprintf(out, "%s\n", text)
	}
	name := "h2spec"
	if way != "waypoint" {
		name += " " + way
	}
	fmt.Fprintf(out, "%s: %d tests, %d passed\n", name, count(1), count(2))
	return good, nil
}

// h2specAddress is where the tester, which knows no tunnels, connects to.
func (b *testbed) h2specAddress(ctx context.Context, p *proxy, way string) (net.Addr, func() error, error) {
	r := request{Via: way, To: "80"}
	if way == "waypoint" {
		r.To = "httpbin:8000"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	go accept(l, func(c net.Conn) {
		defer c.Close()
		inner, err := b.connect(ctx, p, r)
		if err != nil {
			return
		}
		defer inner.Close()
		joined(c, inner)
	})
	return l.Addr(), l.Close, nil
}

// joined carries bytes both ways until both directions have ended, or one is broken.
func joined(a, b net.Conn) {
	ends := make(chan error, 2)
	carry := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		ends <- err
	}
	go carry(a, b)
	go carry(b, a)
	if <-ends == nil {
		<-ends
	}
}
