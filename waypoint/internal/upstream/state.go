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
	MembershipTotal, MembershipHealthy, MembershipDegraded                                int
}

// HostState is one host of a cluster.
type HostState struct {
	Endpoint *l7.Endpoint
	// Address as /clusters shows it: that of the socket, or "envoy://connect_originate/POD:9080".
	Address                                                                            string
	CxActive, CxTotal, CxConnectFail, RqActive, RqTotal, RqError, RqSuccess, RqTimeout uint64
}
