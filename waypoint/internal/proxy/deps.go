package proxy

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// CertSource gives the proxy's own certificate in force; it blocks until there is one.
type CertSource interface {
	Get(ctx context.Context) (*certs.Workload, error)
}

// Limits bound what clients can make the proxy hold. Zero fields take the defaults.
type Limits struct {
	// MaxHandshakes is how many TLS handshakes of clients may be open; default 1024.
	MaxHandshakes int
	// HandshakeTimeout bounds one; default 10 s.
	HandshakeTimeout time.Duration
	// SniffTimeout is how long the first bytes of a connection are waited for where the chain depends on them; default 5 s.
	SniffTimeout time.Duration
	// RetryBuffer is how much of a request's body is kept for a retry; default 1 MiB.
	RetryBuffer int
	// MaxMirrors is how many mirrored requests may be open; more are not sent. Default 1024.
	MaxMirrors int
	// Patience is how long a destination that is not known may take to become so, as others hear of a new binding earlier than this proxy
	// does; default 1 s.
	Patience time.Duration
	// DrainGrace is how long connections that carry nothing may stay after draining started; default 5 s.
	DrainGrace time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.MaxHandshakes == 0 {
		l.MaxHandshakes = 1024
	}
	if l.HandshakeTimeout == 0 {
		l.HandshakeTimeout = 10 * time.Second
	}
	if l.SniffTimeout == 0 {
		l.SniffTimeout = 5 * time.Second
	}
	if l.Patience == 0 {
		l.Patience = time.Second
	}
	if l.RetryBuffer == 0 {
		l.RetryBuffer = 1 << 20
	}
	if l.MaxMirrors == 0 {
		l.MaxMirrors = 1024
	}
	if l.DrainGrace == 0 {
		l.DrainGrace = 5 * time.Second
	}
	return l
}

// Deps is what a Server works with. Certs may be nil where no listener and no endpoint uses HBONE.
type Deps struct {
	Certs CertSource
	// Network makes the sockets; nil is the host's namespace.
	Network netx.Network
	// Resolver is for clusters whose hosts are names; nil is the system's.
	Resolver upstream.Resolver
	Observer Observer // nil is Nobody
	Log      *slog.Logger
	Clock    func() time.Time // nil is time.Now
	Rand     l7.Rand          // safe for concurrent use; nil is the runtime's
	Limits   Limits
	// Last, if set, is called when all clients are gone and clusters can still be called.
	Last func()
}

func (d Deps) withDefaults() Deps {
	if d.Network == nil {
		d.Network = netx.HostNS(netx.Options{})
	}
	if d.Resolver == nil {
		d.Resolver = net.DefaultResolver
	}
	if d.Observer == nil {
		d.Observer = Nobody{}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Clock == nil {
		d.Clock = time.Now
	}
	if d.Rand == nil {
		d.Rand = runtimeRand{}
	}
	d.Limits = d.Limits.withDefaults()
	return d
}
