package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const retryPolicy = `"retry_policy":{"retry_on":"connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes","num_retries":2,
"retriable_status_codes":[503],"retry_host_predicate":[{"name":"envoy.retry_host_predicates.previous_hosts","typed_config":{
"@type":"type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],"host_selection_retry_max_attempts":"5"`

// to is a route to the service.
func to(more string) string {
	return `{"match":{"prefix":"/"},"name":"default","route":{"cluster":"` + service + `","timeout":"0s"` + more + `}}`
}

func TestRetriesUntilItWorks(t *testing.T) {
	b := newBed(t)
	var n atomic.Int64
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if n.Add(1)%3 != 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "%d:%s", len(body), r.Header.Get("x-envoy-attempt-count"))
	})
	b.routes = to("," + retryPolicy + "}")
	b.apply(pod)
	told := 0
	for _, h2 := range []bool{false, true} {
		c := b.client("productpage", h2)
		for _, size := range []int{0, 100, 100 << 10} {
			status, body, err := try(t.Context(), c, http.MethodPost, "/", bytes.NewReader(make([]byte, size)))
			if err != nil || status != 200 || !strings.HasPrefix(body, fmt.Sprint(size, ":")) {
				t.Errorf("h2 %t, %d bytes: %d %q %v", h2, size, status, body, err)
			}
			told++
			b.records.last(t, told) // else the next may be told of first
		}
	}
	if r := b.records.last(t, told); r.Attempts != 3 || r.Flags != "-" || r.Received != 100<<10 {
		t.Errorf("%+v", r)
	}
}

func TestRetriesEnd(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	b.routes = to("," + retryPolicy + "}")
	b.apply(pod)
	if status, _ := get(t, b.client("productpage", false), "/"); status != 503 || pod.requests.Load() != 3 {
		t.Errorf("%d after %d attempts", status, pod.requests.Load())
	}
	if r := b.records.last(t, 1); r.Flags != "URX" || r.Details != "via_upstream" || r.Attempts != 3 {
		t.Errorf("%+v", r)
	}
	stats := b.clusterStats(service)
	if stats.RqRetry != 2 || stats.RqRetryLimitExceeded != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestABodyThatIsTooBigIsNotRetried(t *testing.T) {
	b := newBedWith(t, Limits{RetryBuffer: 64 << 10})
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	b.routes = to("," + retryPolicy + "}")
	b.apply(pod)
	status, _, err := try(t.Context(), b.client("productpage", false), http.MethodPost, "/", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil || status != 503 || pod.requests.Load() != 1 {
		t.Errorf("%d after %d attempts, %v", status, pod.requests.Load(), err)
	}
}

func TestARetryGoesToAnotherHost(t *testing.T) {
	b := newBed(t)
	good := b.backend("reviews", say("good"))
	dead := b.newBackend("reviews") // nobody listens there
	dead.ip = nextIP()
	b.routes = to("," + retryPolicy + "}")
	b.apply(good, dead)
	c := b.client("productpage", false)
	for range 20 {
		if status, body := get(t, c, "/"); status != 200 || body != "good" {
			t.Fatalf("%d %q", status, body)
		}
	}
}

func TestUnreachableHost(t *testing.T) {
	b := newBed(t)
	dead := b.newBackend("reviews")
	b.apply(dead)
	status, body := get(t, b.client("productpage", false), "/")
	if status != 503 || body != "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure" {
		t.Errorf("%d %q", status, body)
	}
	r := b.records.last(t, 1)
	if r.Flags != "UF" || r.Failure != "delayed_connect_error:_Connection_refused" ||
		r.Details != "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}" {
		t.Errorf("%+v", r)
	}
	b.endpoints()
	if status, body := get(t, b.client("productpage", false), "/"); status != 503 || body != "no healthy upstream" {
		t.Errorf("%d %q", status, body)
	}
	if r := b.records.last(t, 2); r.Flags != "UH" || r.Details != "no_healthy_upstream" {
		t.Errorf("%+v", r)
	}
}

func TestAReusedAddressIsNotTrusted(t *testing.T) {
	b := newBed(t)
	pod := b.backend("imposter", say("secret"))
	pod.pretends = "reviews"
	b.apply(pod)
	if status, body := get(t, b.client("productpage", false), "/"); status != 503 || strings.Contains(body, "secret") {
		t.Errorf("%d %q", status, body)
	}
	r := b.records.last(t, 1)
	if r.Flags != "UF" || !strings.Contains(r.Failure, "spiffe://cluster.local/ns/default/sa/imposter") {
		t.Errorf("%+v", r)
	}
	if pod.requests.Load() != 0 || b.clusterStats(service).IdentityRefused != 1 {
		t.Errorf("%d requests reached the imposter, %+v", pod.requests.Load(), b.clusterStats(service))
	}
}

func TestTimeouts(t *testing.T) {
	for _, test := range []struct {
		name, route, details string
		attempts             uint32
		flags                string
	}{
		{"route", `{"match":{"prefix":"/"},"name":"default","route":{"cluster":"` + service + `","timeout":"0.2s"}}`, "response_timeout", 1, "UT"},
		{"per try", to(`,"retry_policy":{"retry_on":"gateway-error","num_retries":1,"per_try_timeout":"0.1s"}`), "upstream_per_try_timeout", 2, "URX,UT"},
		{"per try without a retry", to(`,"retry_policy":{"retry_on":"connect-failure","num_retries":1,"per_try_timeout":"0.1s"}`), "upstream_per_try_timeout", 1, "UT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t)
			pod := b.backend("reviews", func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			})
			b.routes = test.route
			b.apply(pod)
			for i, h2 := range []bool{false, true} {
				status, body, err := try(t.Context(), b.client("productpage", h2), http.MethodPost, "/", strings.NewReader("x"))
				if err != nil || status != 504 || body != "upstream request timeout" {
					t.Errorf("%d %q %v", status, body, err)
				}
				if r := b.records.last(t, i+1); sorted(r.Flags) != test.flags || r.Details != test.details || r.Attempts != test.attempts {
					t.Errorf("%+v", r)
				}
			}
			until(t, "the pod sees the end", func() bool { return b.clusterStats(service).RqActive == 0 })
		})
	}
}

func TestTheTimeoutCutsResponsesThatHaveBegun(t *testing.T) {
	for _, protocol := range []string{upstreamHTTP1, upstreamHTTP2} {
		// The response must have begun before the timeout.
		for seconds := 1; !cutByTimeout(t, protocol, seconds); seconds *= 4 {
			if seconds > 60 {
				t.Fatal("the machine is too slow to tell anything")
			}
		}
	}
}

// cutByTimeout tells whether a response had begun in time.
func cutByTimeout(t *testing.T, protocol string, seconds int) (inTime bool) {
	t.Helper()
	b := newBed(t)
	ended := make(chan struct{})
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		fmt.Fprint(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	b.routes = `{"match":{"prefix":"/"},"name":"default","route":{"cluster":"` + service + `","timeout":"` + fmt.Sprint(seconds) + `s"}}`
	b.protocol = protocol
	b.apply(pod)
	status, body, err := try(t.Context(), b.client("productpage", false), http.MethodGet, "/", nil)
	if status == http.StatusGatewayTimeout {
		return false
	}
	if status != 200 || body != "begin" || err == nil {
		t.Fatalf("%d %q %v", status, body, err)
	}
	if r := b.records.last(t, 1); r.Flags != "UT" || r.Details != "response_timeout" {
		t.Errorf("%+v", r)
	}
	<-ended
	return true
}

func TestHostsThatBreakOff(t *testing.T) {
	for _, test := range []struct {
		name, sends, flags, details string
		status                      int
	}{
		{"at once", "", "UC", "upstream_reset_before_response_started{connection_termination}", 503},
		{"nonsense", "nonsense\r\n\r\n", "UPE", "upstream_reset_before_response_started{protocol_error}", 502},
		{"in the body", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", "UPE", "upstream_reset_after_response_started{protocol_error}", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t)
			pod := b.rawBackend("reviews", func(c net.Conn) {
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, test.sends)
			})
			b.apply(pod)
			status, _, err := try(t.Context(), b.client("productpage", false), http.MethodGet, "/", nil)
			if status != test.status || (err != nil) != (test.status == 200) {
				t.Errorf("%d, %v", status, err)
			}
			if r := b.records.last(t, 1); r.Flags != test.flags || r.Details != test.details || r.Status != test.status {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestClientsThatGoAway(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := newBed(t)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		ended := make(chan struct{})
		pod := b.backend("reviews", func(_ http.ResponseWriter, r *http.Request) {
			leave()
			<-r.Context().Done()
			close(ended)
		})
		b.apply(pod)
		c := b.client("productpage", h2)
		if _, _, err := try(ctx, c, http.MethodGet, "/", nil); err == nil {
			t.Error("an answer came")
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Fatal("the pod was not told")
		}
		if r := b.records.last(t, 1); r.Flags != "DC" || r.Details != "downstream_remote_disconnect" || r.Status != 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestOverflow(t *testing.T) {
	b := newBed(t)
	release := make(chan struct{})
	pod := b.backend("reviews", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, "late")
	})
	b.breakers = `"max_connections":1,"max_pending_requests":1`
	b.apply(pod)
	results := make(chan int, 2)
	c := b.client("productpage", false)
	request := func() {
		status, _, _ := try(t.Context(), c, http.MethodGet, "/", nil)
		results <- status
	}
	go request()
	until(t, "the first is there", func() bool { return pod.requests.Load() == 1 })
	go request()
	until(t, "the second waits", func() bool { return b.clusterStats(service).RqPending == 1 })
	r, err := c.Get("http://" + host + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if r.StatusCode != 503 || r.Header.Get("x-envoy-overloaded") != "true" ||
		string(body) != "upstream connect error or disconnect/reset before headers. reset reason: overflow" {
		t.Errorf("%d %v %q", r.StatusCode, r.Header, body)
	}
	if r := b.records.last(t, 1); r.Flags != "UO" || r.Details != "upstream_reset_before_response_started{overflow}" {
		t.Errorf("%+v", r)
	}
	close(release)
	for range 2 {
		if status := <-results; status != 200 {
			t.Errorf("%d", status)
		}
	}
}

// sorted is the flags in an order of ours.
func sorted(flags string) string {
	all := strings.Split(flags, ",")
	slices.Sort(all)
	return strings.Join(all, ",")
}
