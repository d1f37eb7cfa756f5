package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// outlier is how a host has behaved lately, as outlier detection sees it.
type outlier struct {
	errors, gateway, local atomic.Uint32 // consecutive

	ejected atomic.Bool // not to be chosen for a while
	// trial is whether the host has come back and has yet to prove itself: it takes one request at a time, and the first failure
	// that counts ejects it again.
	trial atomic.Bool

	mu    sync.Mutex // guards the rest
	times int        // how often it was ejected, less one for each interval since in which it was well
	back  time.Time  // when it came back
}

// observe counts an answer or a failure (status 0: local says that none came) toward an ejection.
func (c *Cluster) observe(h *Host, status int, local bool) {
	conf := c.Config().Outlier
	if conf == nil {
		return
	}
	o := h.outlier
	if local && conf.SplitLocal {
		if o.reaches(&o.local, conf.ConsecutiveLocal) {
			c.eject(h, conf)
		}
		return
	}
	if !local {
		o.local.Store(0)
	}
	if status < 500 {
		o.errors.Store(0)
		o.gateway.Store(0)
		if o.trial.Load() {
			o.trial.Store(false)
		}
		return
	}
	bad := o.reaches(&o.errors, conf.Consecutive5xx)
	if status >= 502 && status <= 504 {
		bad = o.reaches(&o.gateway, conf.ConsecutiveGateway) || bad
	} else {
		o.gateway.Store(0)
	}
	if bad {
		c.eject(h, conf)
	}
}

// reaches counts one more failure of a kind, and tells whether they are enough; limit 0 is never.
func (o *outlier) reaches(n *atomic.Uint32, limit uint32) bool {
	count := n.Add(1)
	return limit > 0 && (count >= limit || o.trial.Load())
}

// eject takes a host out of the choice for a while, unless too many are out already.
func (c *Cluster) eject(h *Host, conf *l7.Outlier) {
	h = h.root
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view.Load()
	out := 0
	known := false
	for _, other := range v.hosts {
		if other.outlier.ejected.Load() {
			out++
		}
		known = known || other == h
	}
	if !known || h.outlier.ejected.Load() || 100*(out+1) > int(conf.MaxEjectionPercent)*len(v.hosts) {
		return
	}
	o := h.outlier
	o.ejected.Store(true)
	o.trial.Store(false)
	o.mu.Lock()
	if !o.back.IsZero() && conf.Interval > 0 {
		o.times = max(0, o.times-int(time.Since(o.back)/conf.Interval))
	}
	o.times++
	pause := min(time.Duration(o.times)*conf.BaseEjection, conf.MaxEjection)
	o.mu.Unlock()
	c.stats.ejections.Add(1)
	c.applyLocked(v.conf, v.endpoints)
	c.manager.deps.Log.Info("host ejected", "host", h.describe(), "for", pause)
	time.AfterFunc(pause, func() { c.readmit(h) })
}

// readmit gives a host another chance.
func (c *Cluster) readmit(h *Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := h.outlier
	o.errors.Store(0)
	o.gateway.Store(0)
	o.local.Store(0)
	o.trial.Store(true)
	o.ejected.Store(false)
	o.mu.Lock()
	o.back = time.Now()
	o.mu.Unlock()
	if v := c.view.Load(); !c.gone {
		c.applyLocked(v.conf, v.endpoints)
	}
}
