package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// sendOften sends a request several times, some of them at once, and says of all of them who has answered and how.
func (b *testbed) sendOften(ctx context.Context, p *proxy, r request) (*result, error) {
	var last *result
	met, byStatus := map[string]bool{}, map[int]*result{}
	count := map[string]int{}
	note := func(got *result) {
		last = got
		byStatus[got.status] = got
		if got.seen != nil {
			met[got.seen.Workload] = true
			count[got.seen.Workload]++
		}
	}
	for left := r.Repeat; left > 0; {
		n := min(left, max(r.Together, 1))
		left -= n
		got, errs := make([]*result, n), make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { got[i], errs[i] = b.sendOnce(ctx, p, r) })
		}
		all.Wait()
		for i := range n {
			if errs[i] != nil {
				return nil, errs[i]
			}
			note(got[i])
		}
		if r.Cookie != "" && r.Headers["cookie"] == "" {
			r = r.withCookie(last)
			clear(met) // the first answer was anybody's
		}
	}
	out := *last
	out.met, out.statuses = slices.Sorted(maps.Keys(met)), slices.Sorted(maps.Keys(byStatus))
	if r.Together > 1 && len(out.statuses) > 1 {
		for _, status := range out.statuses {
			out.answers = append(out.answers, byStatus[status])
		}
	}
	out.metCount = r.Met
	out.shares = map[string]int{}
	for name, n := range count {
		out.shares[name] = 100 * n / r.Repeat
	}
	return &out, nil
}

// withCookie is the request with the cookie that an answer has set, or the header of that name.
func (r request) withCookie(answer *result) request {
	headers := maps.Clone(r.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers["cookie"] = "none=1"
	for _, c := range (&http.Response{Header: answer.header}).Cookies() {
		if c.Name == r.Cookie {
			headers["cookie"] = c.Name + "=" + c.Value
		}
	}
	if v := answer.header.Get(r.Cookie); v != "" {
		headers[r.Cookie] = v
	}
	r.Headers = headers
	return r
}
