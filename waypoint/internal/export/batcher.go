package export

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

const (
	// waitingLimit is how many bytes may wait for a collector; records beyond are dropped.
	waitingLimit = 4 << 20
	// batchLimit is how many bytes of records one request has; collectors take 4 MiB by default.
	batchLimit = 512 << 10
	// eager is how many bytes are sent without waiting for more.
	eager = 64 << 10
	// linger is how long records are gathered.
	linger = time.Second
	// parting is how long what waits at the end may take.
	parting = 3 * time.Second
	// defaultTimeout bounds a request whose provider says nothing, or forever.
	defaultTimeout = 10 * time.Second
)

// Send sends a request to a cluster; an error says that what was in it is lost.
type Send func(ctx context.Context, cluster string, head *httpmsg.Head, body []byte) error

// Counters of one kind of records.
type Counters struct{ Sent, Dropped atomic.Uint64 }

// Encoding says how records become a body.
type Encoding struct {
	// Wrap makes the body of records that were joined by Separator.
	Wrap        func(records []byte) []byte
	Separator   string
	ContentType string
	GRPC        bool
}

// Batcher sends records to one collector. Safe for concurrent use.
type Batcher struct {
	to       tracing.Provider
	encoding Encoding
	send     Send
	counters *Counters
	log      *slog.Logger

	wake, full chan struct{} // hold one token: records wait; enough of them to be sent at once
	done       chan struct{} // closed when the goroutine has ended
	cancel     context.CancelFunc

	mu     sync.Mutex // guards the rest
	queue  []batch
	bytes  int
	closed bool
}

type batch struct {
	records []byte
	count   uint64
}

// NewBatcher starts one; Close ends it.
func NewBatcher(to tracing.Provider, encoding Encoding, send Send, counters *Counters, log *slog.Logger) *Batcher {
	ctx, cancel := context.WithCancel(context.Background())
	b := &Batcher{
		to: to, encoding: encoding, send: send, counters: counters, log: log, cancel: cancel,
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go b.run(ctx)
	return b
}

// Add takes a copy of a record, and never waits.
func (b *Batcher) Add(record []byte) {
	b.mu.Lock()
	if b.closed || b.bytes+len(record) > waitingLimit {
		b.mu.Unlock()
		b.counters.Dropped.Add(1)
		return
	}
	first := len(b.queue) == 0
	if first || len(b.queue[len(b.queue)-1].records)+len(record) > batchLimit {
		b.queue = append(b.queue, batch{})
	}
	last := &b.queue[len(b.queue)-1]
	if last.count > 0 {
		last.records = append(last.records, b.encoding.Separator...)
	}
	last.records = append(last.records, record...)
	last.count++
	b.bytes += len(record)
	enough := b.bytes >= eager
	b.mu.Unlock()
	if first {
		signal(b.wake)
	}
	if enough {
		signal(b.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run sends until the batcher is closed and empty.
func (b *Batcher) run(ctx context.Context) {
	defer close(b.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for range b.wake {
		timer.Reset(linger)
		select {
		case <-b.full:
		case <-timer.C:
		}
		for {
			next, ok := b.next()
			if !ok {
				break
			}
			b.deliver(ctx, next)
		}
		b.mu.Lock()
		closed := b.closed && len(b.queue) == 0
		b.mu.Unlock()
		if closed {
			return
		}
	}
}

func (b *Batcher) next() (batch, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		b.queue = nil
		return batch{}, false
	}
	first := b.queue[0]
	b.queue = b.queue[1:]
	b.bytes -= len(first.records)
	b.bytes = max(b.bytes, 0)
	return first, true
}

func (b *Batcher) deliver(ctx context.Context, records batch) {
	limit := b.to.Timeout
	if limit <= 0 {
		limit = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body := b.encoding.Wrap(records.records)
	if err := b.send(ctx, b.to.Cluster, b.head(len(body)), b.framed(body)); err != nil {
		b.counters.Dropped.Add(records.count)
		b.log.Warn("what was to be told to a collector is lost", "cluster", b.to.Cluster, "records", records.count, "error", err)
		return
	}
	b.counters.Sent.Add(records.count)
}

func (b *Batcher) head(length int) *httpmsg.Head {
	h := &httpmsg.Head{
		Version: httpmsg.HTTP11, Method: "POST", Scheme: "http", Authority: b.to.Authority, Path: b.to.Path, ContentLength: int64(length),
	}
	h.Header.Add("content-type", b.encoding.ContentType)
	if b.encoding.GRPC {
		h.Version, h.ContentLength = httpmsg.HTTP2, -1
		h.Header.Add("te", "trailers")
	}
	for _, f := range b.to.Headers {
		h.Header.Set(f.Key, f.Value)
	}
	return h
}

// framed puts gRPC's prefix before a message.
func (b *Batcher) framed(body []byte) []byte {
	if !b.encoding.GRPC {
		return body
	}
	out := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(out[1:], uint32(len(body))) //nolint:gosec // bounded by batchLimit
	return append(out, body...)
}

// Close sends what waits, for a moment at most, and ends.
func (b *Batcher) Close() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.closed = true
	b.mu.Unlock()
	signal(b.wake)
	signal(b.full)
	limit := time.AfterFunc(parting, b.cancel)
	defer limit.Stop()
	<-b.done
	b.cancel()
}
