package peer

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestPropagate(t *testing.T) {
	travels := []string{
		"x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "b3",
		"traceparent", "tracestate", "baggage", "authorization", "cookie", "jwt", "x-ot-span-context",
		"x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority",
		"grpc-trace-bin", "x-cloud-trace-context", "user-agent", "sw8",
	}
	stays := []string{"accept", "host", "connection", "content-length", "x-forwarded-for", "x-forwarded-client-cert"}
	in := http.Header{}
	for _, name := range append(append([]string{"end-user"}, travels...), stays...) {
		in.Set(name, "value of "+name)
	}
	for what, out := range map[string]http.Header{"Propagate": Propagate(in), "PropagateEndUser": PropagateEndUser(in)} {
		for _, name := range travels {
			if got := out.Get(name); got != "value of "+name {
				t.Errorf("%s: %s = %q", what, name, got)
			}
		}
		for _, name := range stays {
			if out.Get(name) != "" {
				t.Errorf("%s: %s must not travel", what, name)
			}
		}
	}
	if Propagate(in).Get(EndUser) != "" {
		t.Error("Propagate lets a caller name the end user")
	}
	if PropagateEndUser(in).Get(EndUser) == "" {
		t.Error("PropagateEndUser drops the end user")
	}
}

func TestGet(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(503)
		case "/text":
			_, _ = w.Write([]byte("not JSON"))
		default:
			_, _ = w.Write([]byte(`{"x":"` + r.Header.Get("X-Request-Id") + `"}`))
		}
	}))
	defer srv.Close()
	c := NewClient(Transport())
	get := func(path string) (int, string, error) {
		status, body, err := c.Get(t.Context(), srv.URL+path, http.Header{"X-Request-Id": {"7"}}, 5*time.Second)
		return status, string(body), err
	}
	if status, body, err := get("/"); status != 200 || body != `{"x":"7"}` || err != nil {
		t.Errorf("fine: %d %q %v", status, body, err)
	}
	if status, _, err := get("/bad"); status != 503 || err != nil {
		t.Errorf("refused: %d %v", status, err)
	}
	if _, _, err := get("/text"); err == nil {
		t.Error("an answer that is not JSON must be an error")
	}
	srv.Close()
	if _, _, err := get("/"); err == nil {
		t.Error("nobody listens: want an error")
	}
}
