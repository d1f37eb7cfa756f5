package accesslog

import (
	"net/netip"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// connOf never returns nil.
func connOf(r *proxy.Record) *l7.Conn {
	if r.Conn == nil {
		return &l7.Conn{}
	}
	return r.Conn
}

// client is who sent the request, by x-forwarded-for where that is trusted.
func client(r *proxy.Record) netip.AddrPort {
	if r.Request != nil && r.Request.Remote.IsValid() {
		return r.Request.Remote
	}
	return source(r)
}

func source(r *proxy.Record) netip.AddrPort      { return connOf(r).Source }
func destination(r *proxy.Record) netip.AddrPort { return connOf(r).Destination }

func protocol(r *proxy.Record) string {
	if r.Protocol == 0 {
		return ""
	}
	return r.Protocol.String()
}

func upstreamCluster(r *proxy.Record) string {
	if r.Cluster != nil && r.Cluster.StatName != "" {
		return r.Cluster.StatName
	}
	return r.ClusterName
}

// upstreamRemote is the host when there was a connection to it.
func upstreamRemote(r *proxy.Record) string {
	if r.Flags&l7.FlagUpstreamConnectionFailure != 0 {
		return ""
	}
	return r.UpstreamHost
}

func upstreamAddress(r *proxy.Record) netip.AddrPort {
	if r.Endpoint == nil || r.Flags&l7.FlagUpstreamConnectionFailure != 0 {
		return netip.AddrPort{}
	}
	return r.Endpoint.Address
}

func upstreamHostName(r *proxy.Record) string {
	switch {
	case r.Endpoint == nil:
		return ""
	case r.Endpoint.Hostname != "":
		return r.Endpoint.Hostname
	}
	return r.UpstreamHost
}

// upstreamLocal is, for a host behind an internal listener, the address that Envoy shows for its side of that.
func upstreamLocal(dst []byte, r *proxy.Record) ([]byte, bool) {
	switch {
	case r.Endpoint != nil && r.Endpoint.Internal != "" && r.UpstreamHost != "":
		return append(dst, "envoy://internal_client_address/"...), true
	case r.UpstreamLocal.IsValid():
		return r.UpstreamLocal.AppendTo(dst), true
	}
	return dst, false
}

func chainName(r *proxy.Record) string {
	if r.Chain == nil {
		return ""
	}
	return r.Chain.Name
}

func logType(r *proxy.Record) string {
	if r.Kind == proxy.KindConnection {
		return "TcpConnectionEnd"
	}
	return "DownstreamEnd"
}

// appendUnspaced keeps a value one word.
func appendUnspaced(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			dst = append(dst, '_')
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
