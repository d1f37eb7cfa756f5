package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// The values of the log key direction.
const (
	directionOutbound = "outbound"
	directionInbound  = "inbound"
)

// traffic describes one connection for logs and metrics.
type traffic struct {
	outbound                bool
	src, dst                netip.AddrPort
	hboneDst                string // the tunnel's authority
	source, destination     *l4.Workload
	service                 *l4.Service
	secure                  bool // mutual TLS
	sourceID, destinationID spiffe.ID
}

// record follows one connection into metrics and log.
type record struct {
	// immutable once it is in the registry
	instance *Instance
	start    time.Time

	traffic traffic // owned by the connection's goroutine; settled when it is opened

	bytes netx.Counters // counted by the relay

	mu            sync.Mutex // guards what follows; report and end may meet
	series        *series    // held while the connection is open; nil else
	reportedUp    uint64
	reportedDown  uint64
	reportedSteps uint64
}

// begin starts to follow a connection. Call end once.
func (i *Instance) begin(t traffic) *record {
	return &record{instance: i, traffic: t, start: time.Now()}
}

// opened counts the connection.
func (r *record) opened() {
	r.mu.Lock()
	r.hold().opened.Add(1)
	r.mu.Unlock()
	r.log(slog.LevelDebug, "connection opened", nil)
}

// hold begins to count the connection as open. r.mu is held.
func (r *record) hold() *series {
	m := r.instance.deps.Metrics
	r.series = m.traffic.hold(r.traffic.values(flagNone))
	m.sockets.WithLabelValues(r.traffic.reporter()).Inc()
	return r.series
}

// release ends what hold began, and returns nil if the connection is not counted as open.
func (r *record) release() *series {
	r.mu.Lock()
	held := r.series
	r.series = nil
	r.mu.Unlock()
	if held != nil {
		m := r.instance.deps.Metrics
		m.traffic.release(held)
		m.sockets.WithLabelValues(r.traffic.reporter()).Dec()
	}
	return held
}

// report adds the bytes since the last report.
func (r *record) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.series == nil {
		return
	}
	up, down, steps := r.bytes.Sent.Load(), r.bytes.Received.Load(), r.bytes.Sent.Steps()+r.bytes.Received.Steps()
	work := budget.Work{Steps: steps - r.reportedSteps}
	if bytes := up - r.reportedUp + down - r.reportedDown; r.traffic.secure {
		work.TunnelBytes = bytes
	} else {
		work.PlainBytes = bytes
	}
	r.instance.account.Did(work)
	r.series.received.Add(up - r.reportedUp)
	r.series.sent.Add(down - r.reportedDown)
	r.reportedUp, r.reportedDown, r.reportedSteps = up, down, steps
}

// adopt goes on with the record of a connection that another process has begun: that has counted it as opened, and reported its bytes
// so far.
func (r *record) adopt(c *carried) {
	r.start = c.start
	r.bytes.Sent.Store(c.sentBytes)
	r.bytes.Received.Store(c.receivedBytes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reportedUp, r.reportedDown = c.sentBytes, c.receivedBytes
	r.hold()
}

// moved ends the record of a connection with which another process goes on.
func (r *record) moved() {
	r.report()
	r.release()
	r.log(slog.LevelDebug, "connection handed over", nil)
}

// end counts the connection's end and logs it. A nil error is an orderly end.
func (r *record) end(err error) {
	r.report()
	if held := r.release(); held != nil {
		if errors.Is(err, io.EOF) {
			err = nil // the ordinary end; of one that was never open it is the cause
		}
		held.closed.Add(1)
	} else {
		r.instance.deps.Metrics.traffic.fail(r.traffic.values(flagOf(err)))
	}
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelError
	}
	r.log(level, "connection complete", err)
}

func (r *record) log(level slog.Level, message string, err error) {
	log := r.instance.deps.AccessLog
	if !log.Enabled(context.Background(), level) {
		return
	}
	t := &r.traffic
	attrs := make([]slog.Attr, 0, 20)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	attrs = append(attrs, slog.Any("src.addr", t.src))
	side := func(prefix string, w *l4.Workload, id spiffe.ID) {
		if w != nil {
			text(prefix+".workload", w.Name)
			text(prefix+".namespace", w.Namespace)
		}
		if t.secure {
			text(prefix+".identity", id.String())
		}
		if w != nil {
			text(prefix+".cluster", w.ClusterID)
		}
	}
	side("src", t.source, t.sourceID)
	attrs = append(attrs, slog.Any("dst.addr", t.dst))
	if hboneDst, err := netip.ParseAddrPort(t.hboneDst); err == nil {
		attrs = append(attrs, slog.Any("dst.hbone_addr", hboneDst))
	} else {
		text("dst.hbone_addr", t.hboneDst)
	}
	if t.service != nil {
		text("dst.service", t.service.Hostname)
	}
	side("dst", t.destination, t.destinationID)
	direction := directionInbound
	up, down := r.bytes.Sent.Load(), r.bytes.Received.Load()
	if t.outbound {
		direction = directionOutbound
	}
	text("direction", direction)
	attrs = append(attrs, slog.Uint64("bytes_sent", down), slog.Uint64("bytes_recv", up),
		slog.String("duration", strconv.FormatInt(time.Since(r.start).Milliseconds(), 10)+"ms"))
	if err != nil {
		text("error", err.Error())
	}
	log.LogAttrs(context.Background(), level, message, attrs...)
}

// logEarly tells of a connection that failed before both its ends were known.
func (i *Instance) logEarly(direction string, src, dst netip.AddrPort, err error) {
	attrs := []slog.Attr{slog.Any("src.addr", src)}
	if dst.IsValid() {
		attrs = append(attrs, slog.Any("dst.addr", dst))
	}
	attrs = append(attrs, slog.String("direction", direction), slog.String("error", err.Error()))
	i.deps.AccessLog.LogAttrs(context.Background(), slog.LevelWarn, "connection failed", attrs...)
}
