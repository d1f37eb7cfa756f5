package upstream

import "sync/atomic"

// gauge is a number with a limit that changes with the configuration.
type gauge struct{ n atomic.Int64 }

// take counts one more unless there are as many as allowed.
func (g *gauge) take(limit uint32) bool {
	if g.n.Add(1) > int64(limit) {
		g.n.Add(-1)
		return false
	}
	return true
}

// force counts one more in any case.
func (g *gauge) force()      { g.n.Add(1) }
func (g *gauge) give()       { g.n.Add(-1) }
func (g *gauge) load() int64 { return g.n.Load() }

// gauges are what circuit breakers look at.
type gauges struct{ connections, pending, requests, retries gauge }

// counters are the statistics of a cluster; see [ClusterStats].
type counters struct {
	cxTotal, cxConnectFail, cxConnectTimeout, cxOverflow              atomic.Uint64
	rqTotal, rqPendingTotal, rqPendingOverflow, rqOverflow            atomic.Uint64
	rqTimeout, rqPerTryTimeout, rqRetry, rqRetrySuccess               atomic.Uint64
	rqRetryOverflow, rqRetryLimitExceeded, rqCancelled, rqRxReset     atomic.Uint64
	rqTxReset, rqNoneHealthy, rqCompleted, identityRefused, ejections atomic.Uint64
	revoked                                                           atomic.Uint64
	byClass                                                           [6]atomic.Uint64 // 1xx at 1
}

// hostCounters are the statistics of a host; see [HostState].
type hostCounters struct {
	cxActive                               atomic.Int64
	cxTotal, cxConnectFail                 atomic.Uint64
	rqTotal, rqSuccess, rqError, rqTimeout atomic.Uint64
}
