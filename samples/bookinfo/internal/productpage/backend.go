package productpage

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
)

const (
	fetchTimeout = 3 * time.Second
	// reviewsTries makes the page wait at most 6 s for reviews, less than the
	// 7 s delay of the fault-injection example: that is how it gets noticed.
	reviewsTries = 2
	// floodParallel bounds the connections that flooding has open at once.
	floodParallel = 32
)

// result is one service's answer: on 200 its JSON, else {"error": …} and the
// status to pass on.
type result struct {
	Status int
	Body   json.RawMessage
	Error  string // for people; "" on success
}

// backend fetches what the page shows from the other services.
type backend struct {
	cfg     Config
	client  *peer.Client
	results *resultCounter
	log     *slog.Logger
}

func (b *backend) details(ctx context.Context, id string, header http.Header) result {
	return b.fetch(ctx, "details", b.cfg.DetailsURL, id, header, 1)
}

func (b *backend) reviews(ctx context.Context, id string, header http.Header) result {
	return b.fetch(ctx, "reviews", b.cfg.ReviewsURL, id, header, reviewsTries)
}

func (b *backend) ratings(ctx context.Context, id string, header http.Header) result {
	return b.fetch(ctx, "ratings", b.cfg.RatingsURL, id, header, 1)
}

// fetch asks service for product id, up to tries times. The status of a failure
// is that of the last try, 500 where it got no answer.
func (b *backend) fetch(ctx context.Context, service, base, id string, header http.Header, tries int) result {
	target := base + "/" + service + "/" + url.PathEscape(id)
	status := http.StatusInternalServerError
	for try := 1; try <= tries && ctx.Err() == nil; try++ {
		got, body, err := b.client.Get(ctx, target, header, fetchTimeout)
		if err != nil {
			got = http.StatusInternalServerError
			b.log.Warn("no answer", "service", service, "try", try, "error", err)
		} else if got != http.StatusOK {
			b.log.Warn("refused", "service", service, "try", try, "status", got)
		}
		b.results.add(service, got)
		if got == http.StatusOK {
			return result{Status: got, Body: body}
		}
		status = got
	}
	message := "Sorry, product " + service + " are currently unavailable for this book."
	body, err := json.Marshal(map[string]string{"error": message})
	if err != nil {
		b.log.Error("encode error message", "error", err)
	}
	return result{Status: status, Body: body, Error: message}
}

// flood calls reviews FloodFactor times for nothing, and waits for the answers.
func (b *backend) flood(ctx context.Context, id string, header http.Header) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, floodParallel)
	for range b.cfg.FloodFactor {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			b.reviews(ctx, id, header)
		})
	}
	wg.Wait()
}
