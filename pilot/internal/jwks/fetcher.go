package jwks

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Config of a Fetcher.
type Config struct {
	// Client is a client as NewClient makes it.
	Client *http.Client
	// Refresh is how often a document is fetched again, when the issuer does not ask for less. 20 minutes when zero.
	Refresh time.Duration
	// Publish is called with each document that is new or different, from several goroutines but never two for one source. It is not
	// called for a source that is no longer wanted. Required.
	Publish func(source, document string)
	Log     *slog.Logger
}

const (
	defaultRefresh = 20 * time.Minute
	defaultTimeout = 5 * time.Second
	// minRefresh limits how often an issuer can make itself be asked.
	minRefresh = time.Minute
	firstRetry = time.Second
)

// Fetcher keeps documents up to date. Make one with New and end it with Close.
type Fetcher struct {
	// immutable after New
	cfg     Config
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	wanted map[string]*watch
}

// watch is one source.
type watch struct {
	source  string
	timeout time.Duration
	ctx     context.Context
	stop    context.CancelFunc
}

// New returns a Fetcher that wants nothing.
func New(cfg Config) *Fetcher {
	if cfg.Refresh == 0 {
		cfg.Refresh = defaultRefresh
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Fetcher{cfg: cfg, ctx: ctx, stop: stop, wanted: map[string]*watch{}}
}

// Close ends fetching and waits until that is so.
func (f *Fetcher) Close() {
	f.mu.Lock()
	f.stop()
	f.mu.Unlock()
	f.running.Wait()
}

// Want says which sources are to be kept from now on, and how long to wait for an answer (5 seconds when zero). Others are dropped.
func (f *Fetcher) Want(sources map[string]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return
	}
	for source, w := range f.wanted {
		if timeout, ok := sources[source]; !ok || orDefault(timeout) != w.timeout {
			w.stop()
			delete(f.wanted, source)
		}
	}
	for source, timeout := range sources {
		if f.wanted[source] != nil {
			continue
		}
		w := &watch{source: source, timeout: orDefault(timeout)}
		w.ctx, w.stop = context.WithCancel(f.ctx)
		f.wanted[source] = w
		f.running.Go(func() { f.keep(w) })
	}
}

func orDefault(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return defaultTimeout
	}
	return timeout
}

// keep fetches one source until its watch ends.
func (f *Fetcher) keep(w *watch) {
	var last string
	retry := firstRetry
	for {
		document, maxAge, err := fetch(w.ctx, f.cfg.Client, w.source, w.timeout)
		if w.ctx.Err() != nil {
			return
		}
		wait := min(max(maxAge, minRefresh), f.cfg.Refresh)
		if err != nil {
			f.cfg.Log.Warn("fetch the keys of a token issuer; tokens are checked with the last ones, or refused when there are none",
				"source", w.source, "error", err, "again in", retry)
			wait, retry = retry, min(2*retry, f.cfg.Refresh)
		} else {
			retry = firstRetry
			if document != last {
				last = document
				f.publish(w, document)
			}
		}
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(wait - time.Duration(rand.Int64N(int64(wait)/10+1))): // replicas do not ask in step
		}
	}
}

func (f *Fetcher) publish(w *watch, document string) {
	f.mu.Lock()
	current := f.wanted[w.source] == w
	f.mu.Unlock()
	if current {
		f.cfg.Publish(w.source, document)
	}
}
