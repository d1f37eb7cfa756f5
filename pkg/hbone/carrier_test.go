package hbone

import (
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// carriage is what carries HTTP/2 in a run of all tests.
type carriage struct {
	name           string
	plain          bool // TCP as it is
	client, server Transport
}

// current changes only between runs.
var current carriage

// rounds runs all tests once for each carriage.
type rounds struct{ m *testing.M }

func (r rounds) Run() int {
	all := carriages()
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" || flag.Lookup("test.bench").Value.String() != "" {
		all = all[:1]
	}
	code := 0
	for _, c := range all {
		current = c
		if testing.Verbose() {
			fmt.Println("over", c.name)
		}
		if failed := r.m.Run(); failed != 0 {
			fmt.Fprintln(os.Stderr, "failed over", c.name)
			code = failed
		}
	}
	return code
}

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(rounds{m})) }

// halfCloser is an end of a connection that can be closed in one direction.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// carrier returns the two ends of a connection as the run wants it.
func carrier(t testing.TB) (client, server halfCloser) {
	t.Helper()
	if current.plain {
		return tcp.Pair(t)
	}
	return secured(t, current)
}

var authority = sync.OnceValues(testkit.NewCA)

// secured is a connection under mutual TLS between two workloads, as node proxies make it.
func secured(t testing.TB, c carriage) (client, server Secured) {
	t.Helper()
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(account string) *certs.Workload {
		w, err := ca.Issue(t.Context(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	from, to := issue("client"), issue("server")
	a, b := tcp.Pair(t)
	done := make(chan error, 1)
	ctx := deadline(t)
	go func() {
		var err error
		server, err = c.server.Server(ctx, b, certs.HBONEServerConfig(func() (*certs.Workload, error) { return to, nil }))
		done <- err
	}()
	if client, err = c.client.Client(ctx, a, certs.HBONEClientConfig(from, []string{to.ID.String()})); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	expectKernel(t, c.client, client)
	expectKernel(t, c.server, server)
	return client, server
}
