package upstream

// Event is what the one who forwards tells a cluster for its statistics.
type Event uint8

// The events.
const (
	EventTimeout Event = iota
	EventPerTryTimeout
	EventRetry
	EventRetrySuccess
	EventRetryOverflow
	EventRetryLimitExceeded
	EventCancelled // by the client
	EventReset     // by the host
	EventTxReset   // by us
)

// Count counts an event; h may be nil.
func (c *Cluster) Count(e Event, h *Host) {
	s := &c.stats
	switch e {
	case EventTimeout:
		s.rqTimeout.Add(1)
	case EventPerTryTimeout:
		s.rqPerTryTimeout.Add(1)
	case EventRetry:
		s.rqRetry.Add(1)
	case EventRetrySuccess:
		s.rqRetrySuccess.Add(1)
	case EventRetryOverflow:
		s.rqRetryOverflow.Add(1)
	case EventRetryLimitExceeded:
		s.rqRetryLimitExceeded.Add(1)
	case EventCancelled:
		s.rqCancelled.Add(1)
	case EventReset:
		s.rqRxReset.Add(1)
	case EventTxReset:
		s.rqTxReset.Add(1)
	}
	if h != nil && (e == EventTimeout || e == EventPerTryTimeout) {
		h.stats.rqTimeout.Add(1)
	}
}

// Answered counts a response of a host.
func (c *Cluster) Answered(h *Host, status int) {
	c.stats.rqCompleted.Add(1)
	if class := status / 100; class >= 1 && class <= 5 {
		c.stats.byClass[class].Add(1)
	}
	if status >= 500 {
		h.stats.rqError.Add(1)
	} else {
		h.stats.rqSuccess.Add(1)
	}
	c.observe(h, status, false)
}

// Failed counts an attempt that the host did not answer, or not in time.
func (c *Cluster) Failed(h *Host, timeout bool) {
	status := 503
	if timeout {
		status = 504
	}
	c.observe(h, status, true)
}

// connected counts a connection for bytes that a host took: there is no answer to judge it by.
func (c *Cluster) connected(h *Host) {
	if conf := c.Config().Outlier; conf != nil {
		h.outlier.local.Store(0)
		c.observe(h, 200, !conf.SplitLocal)
	}
}

// TakeRetry reserves one of the retries that may be under way at once; EndRetry gives it back.
func (c *Cluster) TakeRetry() bool {
	b := c.Config().Breakers
	limit := b.MaxRetries
	if b.BudgetPercent > 0 {
		share := b.BudgetPercent / 100 * float64(c.gauges.requests.load()+c.gauges.pending.load())
		limit = max(uint32(share), b.MinRetries)
	}
	return c.gauges.retries.take(limit)
}

// EndRetry gives back what TakeRetry reserved.
func (c *Cluster) EndRetry() { c.gauges.retries.give() }
