package proxy

import (
	"crypto/x509"
	"net"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
)

// Revocation knows which certificates must not be believed any more.
type Revocation interface {
	// Check returns an error for a chain, leaf first, that holds a revoked certificate.
	Check(chain, roots []*x509.Certificate) error
	// Changed is closed when the answers may have changed since the call.
	Changed() <-chan struct{}
}

// Who reports that a peer is refused, as Istio's metrics have it.
const (
	reportSource      = "source"
	reportDestination = "destination"
)

// peers are the tunnel connections of one pod, by which their other ends can be asked about again.
type peers struct {
	mu  sync.Mutex // guards set
	set map[hbone.Secured]peer
}

// peer is by whom the other end of a tunnel is asked about, and on which side of it we are.
type peer struct {
	roots    []*x509.Certificate
	reporter string
}

// believed checks the other end of a connection after its handshake, and remembers it until the connection is closed.
func (i *Instance) believed(conn hbone.Secured, own *certs.Workload, reporter string) (net.Conn, error) {
	if i.deps.Revocation == nil {
		return conn, nil
	}
	// Remembered before it is asked about: whoever changes the lists meanwhile finds it.
	tracked := i.track(conn, own, reporter)
	if err := i.deps.Revocation.Check(conn.ConnectionState().PeerCertificates, own.RootCerts); err != nil {
		i.deps.Metrics.revoked.WithLabelValues(reporter).Inc()
		tracked.Close()
		return nil, fail(flagRevoked, "peer: %w", err)
	}
	return tracked, nil
}

// track remembers a connection until it is closed.
func (i *Instance) track(conn hbone.Secured, own *certs.Workload, reporter string) net.Conn {
	if i.deps.Revocation == nil {
		return conn
	}
	i.peers.mu.Lock()
	i.peers.set[conn] = peer{own.RootCerts, reporter}
	i.peers.mu.Unlock()
	return &trackedConn{conn, &i.peers}
}

// forget is for a connection that is not closed here.
func (i *Instance) forget(conn hbone.Secured) {
	i.peers.mu.Lock()
	defer i.peers.mu.Unlock()
	delete(i.peers.set, conn)
}

// trackedConn is forgotten when it is closed.
type trackedConn struct {
	hbone.Secured
	peers *peers
}

// Unwrap lets data pass by: only closing is of interest here.
func (c *trackedConn) Unwrap() net.Conn { return c.Secured }

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.peers.mu.Lock()
	delete(c.peers.set, c.Secured)
	c.peers.mu.Unlock()
	return c.Secured.Close()
}

// watchRevocations closes the tunnels of peers whose certificates are revoked, whenever the lists change.
func (i *Instance) watchRevocations() {
	if i.deps.Revocation == nil {
		return
	}
	for {
		changed := i.deps.Revocation.Changed()
		i.closeRevoked()
		select {
		case <-changed:
		case <-i.ctx.Done():
			return
		}
	}
}

func (i *Instance) closeRevoked() {
	i.peers.mu.Lock()
	var gone []hbone.Secured
	for conn, of := range i.peers.set {
		if err := i.deps.Revocation.Check(conn.ConnectionState().PeerCertificates, of.roots); err != nil {
			i.deps.Log.Warn("closing a tunnel", "peer", conn.RemoteAddr(), "error", err)
			i.deps.Metrics.revoked.WithLabelValues(of.reporter).Inc()
			gone = append(gone, conn)
		}
	}
	i.peers.mu.Unlock()
	for _, conn := range gone {
		conn.NetConn().Close() // without a farewell: whoever reads it forgets it
	}
}
