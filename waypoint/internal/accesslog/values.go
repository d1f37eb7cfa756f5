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

// responseFlags are in the order in which Envoy sets them, which for a connection is another one than for a request.
func responseFlags(r *proxy.Record) string {
	if r.Kind == proxy.KindConnection && r.Flags == l7.FlagUpstreamConnectionFailure|l7.FlagUpstreamRetryLimit {
		return "UF,URX"
	}
	return r.Flags.String()
}

// responseDetails are of requests only.
func responseDetails(r *proxy.Record) string {
	if r.Kind == proxy.KindConnection {
		return ""
	}
	return r.Details
}

// termination says of a connection what policy decided; that no host could be reached is told by flags and the failure's reason.
func termination(r *proxy.Record) string {
	const unreached = l7.FlagUpstreamConnectionFailure | l7.FlagNoHealthyUpstream | l7.FlagNoCluster
	if r.Kind == proxy.KindConnection && r.Flags&unreached != 0 {
		return ""
	}
	return r.Termination
}

func attempts(r *proxy.Record) (uint64, bool) {
	if r.Kind == proxy.KindConnection && r.Endpoint != nil {
		return uint64(max(r.Attempts, 1)), true
	}
	return uint64(r.Attempts), true
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
