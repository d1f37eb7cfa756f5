package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	authzCluster = "outbound|8000||authz"
	authzHTTP    = `{"name":"envoy.filters.http.ext_authz","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
"http_service":{"server_uri":{"uri":"http://authz","cluster":"` + authzCluster + `","timeout":"TIMEOUT"},
"authorization_response":{"allowed_upstream_headers":{"patterns":[{"exact":"x-user"}]},"allowed_client_headers_on_success":{"patterns":[{"exact":"x-cookie"}]}}},
"allowed_headers":{"patterns":[{"exact":"x-who"}]}OPTIONS}}`
	authzGRPC = `{"name":"envoy.filters.http.ext_authz","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
"grpc_service":{"envoy_grpc":{"cluster_name":"` + authzCluster + `"},"timeout":"20s"},"transport_api_version":"V3"}}`
	withBody = `,"with_request_body":{"max_request_bytes":5,"allow_partial_message":true}`
)

func authzFilter(timeout, options string) string {
	return strings.NewReplacer("TIMEOUT", timeout, "OPTIONS", options).Replace(authzHTTP)
}

// asking is a bed whose service is asked about at an authorizer that answers so.
func asking(t *testing.T, filter string, authorizer http.HandlerFunc) *bed {
	t.Helper()
	b := newBed(t)
	b.filters = filter
	if authorizer != nil {
		b.clusters[authzCluster] = []*backend{b.backend("authz", authorizer)}
	}
	b.apply(b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("x-seen", r.Header.Get("x-user"))
		_, _ = w.Write([]byte("served " + string(body)))
	}))
	return b
}

func allowJane(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("x-who") != "jane" {
		w.Header().Set("x-why", "not jane")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("only jane"))
		return
	}
	w.Header().Set("x-user", "user of "+r.URL.Path)
	w.Header().Set("x-cookie", "c")
}

func postAs(t *testing.T, c *http.Client, body, who string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+":9080/p", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-who", who)
	r.Header.Set("x-user", "admin")
	if body == "" {
		r.Body = nil
	}
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The authorizer decides, over the tunnel that any host is reached by.
func TestAuthorizer(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := asking(t, authzFilter("20s", ""), allowJane)
		c := b.client("curl", h2)
		r := postAs(t, c, "", "jane")
		if got := bodyOf(t, r); r.StatusCode != 200 || got != "served " || r.Header.Get("x-seen") != "user of /p" || r.Header.Get("x-cookie") != "c" {
			t.Errorf("jane: %d %s %v", r.StatusCode, got, r.Header)
		}
		b.records.last(t, 1) // else the next may be told of first
		r = postAs(t, c, "", "eve")
		if got := bodyOf(t, r); r.StatusCode != 403 || got != "only jane" || r.Header.Get("x-why") != "not jane" {
			t.Errorf("eve: %d %s %v", r.StatusCode, got, r.Header)
		}
		if e := b.records.last(t, 2); e.Flags != "UAEX" || e.Details != "ext_authz_denied" || e.Attempts != 0 {
			t.Errorf("record %+v", e)
		}
		if n := b.clusters[authzCluster][0].requests.Load(); n != 2 {
			t.Errorf("%d questions", n)
		}
	}
}

// A body that the authorizer was told part of arrives whole.
func TestAuthorizerSeesTheBody(t *testing.T) {
	b := asking(t, authzFilter("20s", withBody), func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("x-user", string(body)+" "+r.Header.Get("x-envoy-auth-partial-body"))
	})
	for _, h2 := range []bool{false, true} {
		c := b.client("curl", h2)
		for body, told := range map[string]string{"few": "few false", "fives": "fives", "more than that": "more  true", strings.Repeat("x", 300000): "xxxxx true", "": " "} {
			r := postAs(t, c, body, "")
			got := bodyOf(t, r)
			if seen := r.Header.Get("x-seen"); r.StatusCode != 200 || got != "served "+body || !strings.HasPrefix(seen, strings.TrimSpace(told)) {
				t.Errorf("a body of %d: %d, told %q, served %d bytes", len(body), r.StatusCode, seen, len(got))
			}
		}
	}
}

// A body that is too large for an authorizer who wants all of it is refused, whether it fails open or not.
func TestBodyTooLargeForTheAuthorizer(t *testing.T) {
	b := asking(t, authzFilter("20s", `,"failure_mode_allow":true,"with_request_body":{"max_request_bytes":5}`), func(http.ResponseWriter, *http.Request) {})
	c := b.client("curl", false)
	if r := postAs(t, c, "fives", ""); r.StatusCode != 200 || bodyOf(t, r) != "served fives" {
		t.Errorf("five bytes: %d", r.StatusCode)
	}
	if r := postAs(t, c, "sixsix", ""); r.StatusCode != 413 {
		t.Errorf("six bytes: %d", r.StatusCode)
	}
}

// Without an answer nobody passes, unless that was asked for.
func TestAuthorizerFails(t *testing.T) {
	held := make(chan struct{})
	t.Cleanup(func() { close(held) })
	for name, authorizer := range map[string]http.HandlerFunc{
		"missing": nil,
		"500":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"cut":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-held:
			case <-r.Context().Done():
			}
		},
	} {
		timeout := "20s"
		if name == "slow" {
			timeout = "0.05s"
		}
		closed := asking(t, authzFilter(timeout, `,"status_on_error":{"code":503}`), authorizer)
		if r := postAs(t, closed.client("curl", false), "", "jane"); r.StatusCode != 503 {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
		if e := closed.records.last(t, 1); e.Flags != "UAEX" || e.Details != "ext_authz_error" {
			t.Errorf("%s: %+v", name, e)
		}
		open := asking(t, authzFilter(timeout, `,"failure_mode_allow":true`), authorizer)
		if r := postAs(t, open.client("curl", false), "", "jane"); r.StatusCode != 200 {
			t.Errorf("%s, open: %d", name, r.StatusCode)
		}
	}
}

// A client that goes away while the authorizer thinks ends the question.
func TestClientLeavesTheAuthorizer(t *testing.T) {
	asked, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	b := asking(t, authzFilter("600s", ""), func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = try(ctx, b.client("curl", true), http.MethodGet, "/p", nil)
	}()
	<-asked
	cancel()
	<-ended
	<-done
}

// By gRPC the authorizer is asked on HTTP/2, which its cluster has to speak.
func TestAuthorizerByGRPC(t *testing.T) {
	var principal atomic.Value
	b := asking(t, authzGRPC, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked, answer := &authv3.CheckRequest{}, &authv3.CheckResponse{}
		if err := proto.Unmarshal(body[5:], asked); err != nil {
			t.Error(err)
		}
		principal.Store(asked.GetAttributes().GetSource().GetPrincipal())
		text := `{"status":{"code":7},"denied_response":{"status":{"code":401},"body":"who?"}}`
		if asked.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-who"] == "jane" {
			text = `{"ok_response":{"headers":[{"header":{"key":"x-user","value":"jane"}}]}}`
		}
		if err := protojson.Unmarshal([]byte(text), answer); err != nil {
			t.Error(err)
		}
		out, err := proto.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("trailer", "grpc-status")
		_, _ = w.Write(append([]byte{0, 0, 0, 0, byte(len(out))}, out...))
		w.Header().Set("grpc-status", "0")
	})
	if r := postAs(t, b.client("curl", false), "", "jane"); r.StatusCode != 403 {
		t.Errorf("by HTTP/1: %d", r.StatusCode)
	}
	b.protocol = upstreamHTTP2
	b.apply(b.clusters[service]...)
	c := b.client("curl", false)
	if r := postAs(t, c, "", "jane"); r.StatusCode != 200 || r.Header.Get("x-seen") != "jane" {
		t.Errorf("jane: %d %v", r.StatusCode, r.Header)
	}
	if got := principal.Load(); got != "spiffe://cluster.local/ns/default/sa/curl" {
		t.Errorf("principal %q", got)
	}
	if r := postAs(t, c, "", "eve"); r.StatusCode != 401 || bodyOf(t, r) != "who?" {
		t.Errorf("eve: %d", r.StatusCode)
	}
}
