package l7

import (
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/rbac"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

func compileTCP(p *tcpproxyv3.TcpProxy) (*TCPProxy, error) {
	if p.GetTunnelingConfig() != nil {
		return nil, strict.Errorf("tunneling_config", "is supported only as the whole of an internal listener")
	}
	t := &TCPProxy{
		StatPrefix: p.GetStatPrefix(), Cluster: p.GetCluster(), IdleTimeout: duration(p.GetIdleTimeout(), time.Hour),
		MaxConnectAttempts: uint32Or(p.GetMaxConnectAttempts(), 1), AccessLogs: p.GetAccessLog(),
		MaxDuration: duration(p.GetMaxDownstreamConnectionDuration(), 0),
	}
	for _, h := range p.GetHashPolicy() {
		t.HashSourceIP = t.HashSourceIP || h.GetSourceIp() != nil
	}
	for _, w := range p.GetWeightedClusters().GetClusters() {
		t.Weighted = append(t.Weighted, WeightedCluster{Cluster: w.GetName(), Weight: w.GetWeight()})
		t.totalWeight += uint64(w.GetWeight())
	}
	if t.Cluster == "" && t.totalWeight == 0 {
		return nil, strict.Errorf("cluster", "is required, or weighted_clusters")
	}
	return t, nil
}

// TCPDecision is what happens with a connection of a TCP chain.
type TCPDecision struct {
	// Denied is whether policy closes the connection; Details then is "rbac_access_denied_matched_policy[…]".
	Denied  bool
	Details string
	Flags   Flags
	// ClusterName, Cluster and Endpoints are where the bytes go; Cluster is nil when there is none (flag NC).
	ClusterName string
	Cluster     *Cluster
	Endpoints   *Endpoints
	Hash        uint64
	HashOK      bool
}

// DecideTCP decides about a connection of a TCP chain.
func (c *Config) DecideTCP(ch *Chain, conn *Conn, rnd Rand) TCPDecision {
	if details, ok := ch.Admit(conn); !ok {
		return TCPDecision{Denied: true, Details: details}
	}
	t := ch.TCP
	d := TCPDecision{ClusterName: t.pick(rnd)}
	if d.Cluster = c.Clusters[d.ClusterName]; d.Cluster == nil {
		d.Flags, d.Details = FlagNoCluster, "cluster_not_found"
		return d
	}
	d.Endpoints = c.EndpointsOf(d.Cluster)
	if t.HashSourceIP {
		d.Hash, d.HashOK = hashAddr(conn), true
	}
	return d
}

func (t *TCPProxy) pick(rnd Rand) string {
	if t.totalWeight == 0 {
		return t.Cluster
	}
	at := rnd.Uint64() % t.totalWeight
	for i := range t.Weighted {
		w := uint64(t.Weighted[i].Weight)
		if at < w {
			return t.Weighted[i].Cluster
		}
		at -= w
	}
	return t.Weighted[len(t.Weighted)-1].Cluster
}

func hashAddr(conn *Conn) uint64 {
	a := conn.Source.Addr().As16()
	return xxhash.Sum64(a[:])
}

// Admit is whether the network filters of the chain let the connection in; also of HTTP chains. Details name the policy otherwise.
func (ch *Chain) Admit(conn *Conn) (details string, ok bool) {
	for _, f := range ch.rbac {
		if denied, ok := f.CheckConn(conn); !ok {
			return rbac.Details(denied), false
		}
	}
	return "", true
}

// Asks are the authorizers that have to be asked about a connection of a TCP chain that is admitted.
func (ch *Chain) Asks(conn *Conn) []*extauthz.Filter {
	if len(ch.external) == 0 {
		return nil
	}
	i := rbac.InfoOf(conn)
	for _, f := range ch.rbac {
		f.Check(i)
	}
	var out []*extauthz.Filter
	for _, f := range ch.external {
		if f.Enabled(i) {
			out = append(out, f)
		}
	}
	return out
}

// Shadows are what policies of a dry run say of a connection.
func (ch *Chain) Shadows(conn *Conn) []Shadow {
	if !slices.ContainsFunc(ch.rbac, (*rbac.Filter).DryRun) {
		return nil
	}
	i := rbac.InfoOf(conn)
	for _, f := range ch.rbac {
		f.Check(i)
	}
	return i.Shadows
}
