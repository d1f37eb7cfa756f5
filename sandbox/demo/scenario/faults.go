package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	delayRatings = "bookinfo/networking/virtual-service-ratings-test-delay.yaml"
	abortRatings = "bookinfo/networking/virtual-service-ratings-test-abort.yaml"
	reviewsSorry = "Sorry, product reviews are currently unavailable for this book."

	// asJason logs in as jason and fetches the page with the session; it prints the page and how long it took.
	asJason = `jar=$(mktemp); curl -s -o /dev/null --max-time 8 -c "$jar" -d 'username=jason&passwd=any' http://productpage:9080/login &&
curl -s --max-time 12 -b "$jar" -w '` + tailMark + `%{time_total}' http://productpage:9080/productpage; rm -f "$jar"`

	retriesManifest = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: httpbin, namespace: default}
spec:
  hosts: [httpbin]
  http:
  - match: [{uri: {prefix: /delay}}]
    timeout: 0.5s
    retries: {attempts: 0}
    route: [{destination: {host: httpbin, port: {number: 8000}}}]
  - timeout: 5s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: 5xx}
    route: [{destination: {host: httpbin, port: {number: 8000}}}]
`
	slowTries = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: httpbin, namespace: default}
spec:
  hosts: [httpbin]
  http:
  - timeout: 10s
    retries: {attempts: 2, perTryTimeout: 0.4s, retryOn: 5xx}
    route: [{destination: {host: httpbin, port: {number: 8000}}}]
`
	mirrorManifest = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
    mirrors: [{destination: {host: reviews, subset: v3}, percentage: {value: 100}}]
`
)

// Faults delays, aborts, times out, tries again, and mirrors.
func (b *Bed) Faults(ctx context.Context) {
	b.Report.Section("Delays, failures, time-outs, retries and mirrors")
	for _, file := range []string{forJason, delayRatings} {
		if err := b.sample(ctx, file); err != nil {
			b.Report.Check(ctx, func(context.Context) (string, error) { return "", err })
			return
		}
	}
	b.Report.Check(ctx, b.delayed)
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.sample(ctx, abortRatings); err != nil {
			return "", err
		}
		if _, err := b.until(ctx, "status 500 for jason", status(500), inMesh, "-H", jason, ratingsURL); err != nil {
			return "", err
		}
		r, err := b.fetch(ctx, inMesh, "-H", jason, ratingsURL)
		if err != nil || r.status != 500 || !strings.Contains(r.body, "fault filter abort") {
			return "", expected("500, fault filter abort", "%s %v", r, err)
		}
		page, took, err := b.pageAsJason(ctx)
		if err != nil || !strings.Contains(page, "Ratings service is currently unavailable") {
			return "", expected("a page without ratings", "%.200q %v", page, err)
		}
		if other, err := b.fetch(ctx, inMesh, ratingsURL); err != nil || other.status != 200 {
			return "", expected("everybody else to get ratings", "%s %v", other, err)
		}
		return fmt.Sprintf("abort: jason's calls of ratings fail at once with 500, his page says so after %.2f s; everybody else's do not", took.Seconds()), nil
	})
	b.takeBack(ctx, abortRatings, forJason)
	b.Report.Check(ctx, b.timedOut)
	b.Report.Check(ctx, b.retried)
	b.remove(ctx, slowTries)
	b.Report.Check(ctx, b.mirrored)
	b.remove(ctx, mirrorManifest)
}

const ratingsURL = "http://ratings:9080/ratings/0"

func (b *Bed) pageAsJason(ctx context.Context) (page string, took time.Duration, err error) {
	o, err := b.exec(ctx, inMesh, "bash", "-c", asJason)
	if err != nil {
		return "", 0, err
	}
	page, seconds, ok := strings.Cut(o.stdout, tailMark)
	if took, err = time.ParseDuration(strings.TrimSpace(seconds) + "s"); !ok || err != nil {
		return page, 0, fmt.Errorf("fetch the page as jason: %s", o)
	}
	return page, took, nil
}

// delayed makes ratings 7 s late for jason: reviews would wait for 10 s, but productpage gives up after two times 3 s.
func (b *Bed) delayed(ctx context.Context) (string, error) {
	var page string
	var took time.Duration
	var err error
	waited := b.eventually(ctx, func() bool {
		page, took, err = b.pageAsJason(ctx)
		return err == nil && strings.Contains(page, reviewsSorry) && took > 5500*time.Millisecond && took < 8*time.Second
	})
	if err != nil {
		return "", err
	}
	if waited != nil {
		return "", expected("after 6 s the page with "+reviewsSorry, "%.1f s, %.200q", took.Seconds(), page)
	}
	other, err := b.until(ctx, "everybody else's page at once", func(r reply) bool {
		return r.status == 200 && !strings.Contains(r.body, reviewsSorry) && r.took < 3*time.Second
	}, inMesh, productpage)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("delay of 7 s before ratings, for jason: after %.1f s his page says %q; everybody else has theirs after %.2f s",
		took.Seconds(), reviewsSorry, other.took.Seconds()), nil
}

func (b *Bed) timedOut(ctx context.Context) (string, error) {
	if err := b.apply(ctx, "httpbin.yaml", retriesManifest); err != nil {
		return "", err
	}
	const url = "http://httpbin:8000/delay/2"
	r, err := b.until(ctx, "504, upstream request timeout, after 0.5 s", func(r reply) bool {
		return r.status == 504 && strings.Contains(r.body, "upstream request timeout") && r.took > 400*time.Millisecond && r.took < 1500*time.Millisecond
	}, inMesh, url)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("timeout of 0.5 s before a server that takes 2 s: %d, %q, after %.2f s", r.status, r.body, r.took.Seconds()), nil
}

func (b *Bed) retried(ctx context.Context) (string, error) {
	since := time.Now()
	r, err := b.fetch(ctx, inMesh, "http://httpbin:8000/status/503")
	if err != nil || r.status != 503 {
		return "", expected("status 503 after all attempts", "%s %v", r, err)
	}
	failing, err := b.attempts(ctx, since, 4, `path=/status/503`)
	if err != nil {
		return "", err
	}
	if err := b.apply(ctx, "httpbin.yaml", slowTries); err != nil {
		return "", err
	}
	slow, err := b.until(ctx, "status 504 after three tries of 0.4 s", func(r reply) bool {
		return r.status == 504 && r.took > 1100*time.Millisecond && r.took < 3*time.Second
	}, inMesh, "http://httpbin:8000/delay/3")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("retries: a request that fails was tried %d times (the first and 3 more); one too slow, with 2 more of 0.4 s each, ended with %d after %.2f s",
		failing, slow.status, slow.took.Seconds()), nil
}

// attempts waits until httpbin has logged want requests, and then for none more.
func (b *Bed) attempts(ctx context.Context, since time.Time, want int, patterns ...string) (int, error) {
	n := 0
	var err error
	_ = b.eventually(ctx, func() bool {
		n, err = b.logged(ctx, "httpbin", since, patterns...)
		return err != nil || n >= want
	})
	if err != nil {
		return 0, err
	}
	pause(ctx, 3*retryPause)
	if n, err = b.logged(ctx, "httpbin", since, patterns...); err != nil || n != want {
		return n, expected(fmt.Sprintf("%d attempts in the server's log", want), "%d %v", n, err)
	}
	return n, nil
}

func (b *Bed) mirrored(ctx context.Context) (string, error) {
	if err := b.apply(ctx, "mirror.yaml", mirrorManifest); err != nil {
		return "", err
	}
	if err := b.only(ctx, []string{"v1"}); err != nil {
		return "", err
	}
	const calls, path = 25, "/reviews/4711"
	since := time.Now()
	for range calls {
		r, err := b.fetch(ctx, inMesh, "http://reviews:9080"+path)
		if err != nil || r.status != 200 || !strings.Contains(r.body, "reviews-v1") {
			return "", expected("v1 to answer", "%s %v", r, err)
		}
	}
	first, copies := 0, 0
	var err error
	_ = b.eventually(ctx, func() bool {
		if first, err = b.logged(ctx, "reviews-v1", since, "path="+path); err == nil {
			copies, err = b.logged(ctx, "reviews-v3", since, "path="+path, "host=[^ ]*-shadow")
		}
		return err != nil || first >= calls && copies >= calls
	})
	if err != nil {
		return "", err
	}
	if first != calls || copies != calls {
		return "", expected(fmt.Sprintf("%d requests at v1 and as many copies at v3", calls), "%d and %d", first, copies)
	}
	return fmt.Sprintf("mirror: v1 answered all of %d requests, v3 got a copy of each, and nobody waited for its answers", calls), nil
}
