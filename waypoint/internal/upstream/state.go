package upstream

import "github.com/isthmus-mesh/isthmus/waypoint/l7"

// ClusterState is a cluster as /clusters and /stats show it.
type ClusterState struct {
	Name    string
	Cluster *l7.Cluster
	Stats   ClusterStats
	Hosts   []HostState // in the order of the endpoints
}

// ClusterStats are Envoy's cluster.<name>.* of the same meaning.
type ClusterStats struct {
	CxTotal, CxActive, CxConnectFail, CxConnectTimeout, CxOverflow                        uint64
	RqTotal, RqActive, RqPending, RqPendingTotal, RqPendingOverflow, RqOverflow           uint64
	RqTimeout, RqPerTryTimeout, RqRetry, RqRetrySuccess, RqRetryOverflow                  uint64
	RqRetryLimitExceeded, RqCancelled, RqRxReset, RqTxReset, RqNoneHealthy                uint64
	Rq1xx, Rq2xx, Rq3xx, Rq4xx, Rq5xx, RqCompleted, CxRxBytes, CxTxBytes, IdentityRefused uint64
	EjectionsTotal, EjectionsActive, Revoked                                              uint64
	MembershipTotal, MembershipHealthy, MembershipDegraded                                int
}

// HostState is one host of a cluster.
type HostState struct {
	Endpoint *l7.Endpoint
	// Address as /clusters shows it: that of the socket, or "envoy://connect_originate/POD:9080".
	// Ejected is whether outlier detection keeps it out.
	Ejected                                                                            bool
	Address                                                                            string
	CxActive, CxTotal, CxConnectFail, RqActive, RqTotal, RqError, RqSuccess, RqTimeout uint64
}

func (c *Cluster) state() ClusterState {
	v := c.view.Load()
	s := &c.stats
	out := ClusterState{Name: c.name, Cluster: v.conf, Stats: ClusterStats{
		CxTotal: s.cxTotal.Load(), CxConnectFail: s.cxConnectFail.Load(), CxConnectTimeout: s.cxConnectTimeout.Load(),
		CxOverflow: s.cxOverflow.Load(), CxActive: uint64(max(c.gauges.connections.load(), 0)),
		RqTotal: s.rqTotal.Load(), RqActive: uint64(max(c.gauges.requests.load(), 0)), RqPending: uint64(max(c.gauges.pending.load(), 0)),
		RqPendingTotal: s.rqPendingTotal.Load(), RqPendingOverflow: s.rqPendingOverflow.Load(), RqOverflow: s.rqOverflow.Load(),
		RqTimeout: s.rqTimeout.Load(), RqPerTryTimeout: s.rqPerTryTimeout.Load(), RqRetry: s.rqRetry.Load(),
		RqRetrySuccess: s.rqRetrySuccess.Load(), RqRetryOverflow: s.rqRetryOverflow.Load(),
		RqRetryLimitExceeded: s.rqRetryLimitExceeded.Load(), RqCancelled: s.rqCancelled.Load(), RqRxReset: s.rqRxReset.Load(),
		RqTxReset: s.rqTxReset.Load(), RqNoneHealthy: s.rqNoneHealthy.Load(), RqCompleted: s.rqCompleted.Load(),
		IdentityRefused: s.identityRefused.Load(), Revoked: s.revoked.Load(), EjectionsTotal: s.ejections.Load(),
		Rq1xx: s.byClass[1].Load(), Rq2xx: s.byClass[2].Load(), Rq3xx: s.byClass[3].Load(), Rq4xx: s.byClass[4].Load(), Rq5xx: s.byClass[5].Load(),
	}}
	counts := v.set.Counts()
	out.Stats.MembershipTotal, out.Stats.MembershipHealthy, out.Stats.MembershipDegraded = counts.Total, counts.Healthy, counts.Degraded
	hosts := v.hosts
	if len(hosts) == 0 {
		hosts = c.all()
	}
	for _, h := range hosts {
		if h.outlier.ejected.Load() {
			out.Stats.EjectionsActive++
		}
		out.Hosts = append(out.Hosts, h.state())
	}
	return out
}

func (h *Host) state() HostState {
	s := h.stats
	return HostState{
		Endpoint: h.Endpoint(), Address: h.address, Ejected: h.outlier.ejected.Load(), CxActive: uint64(max(s.cxActive.Load(), 0)), CxTotal: s.cxTotal.Load(),
		CxConnectFail: s.cxConnectFail.Load(), RqActive: uint64(max(h.load.Active(), 0)), RqTotal: s.rqTotal.Load(),
		RqError: s.rqError.Load(), RqSuccess: s.rqSuccess.Load(), RqTimeout: s.rqTimeout.Load(),
	}
}
