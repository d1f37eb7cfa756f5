package proxy

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Stats are counters and gauges of the whole server.
type Stats struct {
	// HTTP is by stat_prefix of the connection managers, sorted.
	HTTP []HTTPStats
	// Draining is whether a drain began.
	Draining bool
	// Connections and Tunnels are what is open downstream: sockets, and CONNECTs in them.
	Connections, Tunnels int64
	// HandshakeErrors, NoChain and TunnelsRefused count what was turned away.
	HandshakeErrors, NoChain, TunnelsRefused uint64
	// Revoked counts those of the handshakes that a list of revoked certificates ended, or the lack of one that counts.
	Revoked uint64
	// MirrorsSent and MirrorsDropped count mirrored requests; the latter were not sent because too many were open.
	MirrorsSent, MirrorsDropped uint64
}

// HTTPStats are Envoy's http.<stat_prefix>.*.
type HTTPStats struct {
	Prefix                                       string
	CxTotal, CxActive, RqTotal, RqActive         uint64
	Rq1xx, Rq2xx, Rq3xx, Rq4xx, Rq5xx            uint64
	RqRxReset, RqTxReset, RqTimeout, IdleTimeout uint64
}

// stats is what Stats is read from.
type stats struct {
	connections, tunnels                     atomic.Int64
	handshakeErrors, noChain, tunnelsRefused atomic.Uint64
	revoked                                  atomic.Uint64
	http                                     sync.Map // prefix → *httpStats
}

type httpStats struct {
	cxTotal, rqTotal                             atomic.Uint64
	cxActive, rqActive                           atomic.Int64
	class                                        [6]atomic.Uint64
	rqRxReset, rqTxReset, rqTimeout, idleTimeout atomic.Uint64
}

// of returns the counters of a prefix.
func (s *stats) of(prefix string) *httpStats {
	if found, ok := s.http.Load(prefix); ok {
		return found.(*httpStats)
	}
	found, _ := s.http.LoadOrStore(prefix, &httpStats{})
	return found.(*httpStats)
}

// Stats are the counters of the server (/stats).
func (s *Server) Stats() Stats {
	t := &s.stats
	out := Stats{
		Draining: s.draining.Load(), Connections: t.connections.Load(), Tunnels: t.tunnels.Load(),
		HandshakeErrors: t.handshakeErrors.Load(), Revoked: t.revoked.Load(), NoChain: t.noChain.Load(), TunnelsRefused: t.tunnelsRefused.Load(),
		MirrorsSent: s.mirrors.sent.Load(), MirrorsDropped: s.mirrors.dropped.Load(),
	}
	t.http.Range(func(prefix, v any) bool {
		h := v.(*httpStats)
		out.HTTP = append(out.HTTP, HTTPStats{
			Prefix: prefix.(string), CxTotal: h.cxTotal.Load(), CxActive: uint64(max(h.cxActive.Load(), 0)), RqTotal: h.rqTotal.Load(),
			RqActive: uint64(max(h.rqActive.Load(), 0)), Rq1xx: h.class[1].Load(), Rq2xx: h.class[2].Load(), Rq3xx: h.class[3].Load(),
			Rq4xx: h.class[4].Load(), Rq5xx: h.class[5].Load(), RqRxReset: h.rqRxReset.Load(), RqTxReset: h.rqTxReset.Load(),
			RqTimeout: h.rqTimeout.Load(), IdleTimeout: h.idleTimeout.Load(),
		})
		return true
	})
	slices.SortFunc(out.HTTP, func(a, b HTTPStats) int { return strings.Compare(a.Prefix, b.Prefix) })
	return out
}
