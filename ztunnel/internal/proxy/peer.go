package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
)

// dialPeer opens a tunnel connection for the pool: TCP from the pod's namespace, then TLS as the key's source.
func (i *Instance) dialPeer(ctx context.Context, key hbone.PoolKey) (net.Conn, error) {
	id, err := spiffe.Parse(key.Source)
	if err != nil {
		return nil, fail(flagIdentity, "source identity: %w", err)
	}
	own, err := i.deps.Certs.Get(ctx, id)
	if err != nil {
		return nil, fail(flagIdentity, "certificate of %s: %w", id, err)
	}
	dialling, cancel := context.WithTimeout(ctx, i.deps.Config.ConnectTimeout)
	defer cancel()
	conn, err := i.pod.Net.Dial(dialling, "tcp", key.Dest, netip.Addr{})
	if err != nil {
		return nil, explainDial(key.Dest, err)
	}
	i.account.Did(budget.Work{Handshakes: 1})
	shaking, cancelHandshake := context.WithTimeout(ctx, i.deps.Config.HandshakeTimeout)
	defer cancelHandshake()
	secured, err := i.deps.Config.Transport.Client(shaking, conn, certs.HBONEClientConfig(own, strings.Split(key.ExpectedSANs, ",")))
	if err != nil {
		conn.Close()
		return nil, fail(flagTLS, "TLS handshake with %s, expecting %s: %w", key.Dest, key.ExpectedSANs, err)
	}
	believed, err := i.believed(secured, own, reportSource)
	if err != nil {
		return nil, err
	}
	return hbone.WithExpiry(believed, own.NotAfter()), nil
}
