package telemetry_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func saying(t *testing.T, text string) *l7.Chain {
	t.Helper()
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return &l7.Chain{Name: "c", Told: s}
}

// What a chain says changes its own series, and nobody else's.
func TestRules(t *testing.T) {
	o, registry := newObserver(t, telemetry.Self{}, nil)
	chain := saying(t, `{"metrics":{
 "istio_request_bytes":{"disabled":true},
 "istio_requests_total":{"tags":{"host":"request.host","mine":"'a' + 'b'","none":"request.headers['x-none']","response_flags":null,"destination_app":"'other'"}},
 "istio_response_bytes":{"tags":{"source_app":"'known label'"}},
 "istio_tcp_sent_bytes_total":{"disabled":true},"istio_tcp_received_bytes_total":{"tags":{"port":"destination.port"}}}}`)
	ruled := func() *proxy.Record {
		r := request()
		r.Chain, r.Authority, r.Header = chain, "reviews:9080", &httpmsg.Header{}
		return r
	}
	o.Ended(request())
	o.Ended(ruled())
	o.Ended(ruled())
	families := scrape(t, registry)
	requests := series(families, "istio_requests_total")
	if len(requests) != 2 {
		t.Fatalf("%d series: %v", len(requests), requests)
	}
	at := slices.IndexFunc(requests, func(s string) bool { return strings.Contains(s, `host="reviews:9080"`) })
	if at < 0 {
		t.Fatal(requests)
	}
	for _, part := range []string{`mine="ab"`, `none="unknown"`, `destination_app="other"`, `source_app="productpage"`, "} 2"} {
		if !strings.Contains(requests[at], part) {
			t.Errorf("no %s in %s", part, requests[at])
		}
	}
	if strings.Contains(requests[at], "response_flags") || strings.Contains(requests[1-at], "host=") || !strings.HasSuffix(requests[1-at], "} 1") {
		t.Errorf("%v", requests)
	}
	if got := series(families, "istio_request_bytes"); len(got) != 1 || !strings.Contains(got[0], "} 10") {
		t.Errorf("what is disabled is counted: %v", got)
	}
	if got := series(families, "istio_response_bytes"); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := series(families, "istio_request_duration_milliseconds"); len(got) != 1 || !strings.HasSuffix(got[0], "} 37.5") {
		t.Errorf("a metric that nothing is said of: %v", got)
	}
	c := ruled()
	c.Kind, c.Status, c.ConnectionID = proxy.KindConnection, 0, 5
	o.Opened(c)
	c.BytesReceived, c.BytesSent = 3, 4
	o.Ended(c)
	families = scrape(t, registry)
	if got := series(families, "istio_tcp_received_bytes_total"); len(got) != 1 || !strings.Contains(got[0], `port="`) || !strings.HasSuffix(got[0], "} 3") {
		t.Errorf("%v", got)
	}
	if got := series(families, "istio_tcp_sent_bytes_total"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// Equal rules of a new configuration go on with the same series.
func TestRulesOfTheNextConfiguration(t *testing.T) {
	o, registry := newObserver(t, telemetry.Self{}, nil)
	for range 3 {
		r := request()
		r.Chain = saying(t, `{"metrics":{"istio_requests_total":{"tags":{"mine":"'x'"}}}}`)
		o.Ended(r)
		o.Forget()
	}
	if got := series(scrape(t, registry), "istio_requests_total"); len(got) != 1 || !strings.HasSuffix(got[0], "} 3") {
		t.Errorf("%v", got)
	}
}

func TestCheckRules(t *testing.T) {
	l := &l7.Listener{Chains: []*l7.Chain{saying(t, `{"metrics":{"istio_requests_total":{"tags":{"mine":"reques.host"}}}}`)}}
	if err := telemetry.Check(l); err == nil || !strings.Contains(err.Error(), `istio_requests_total.tags.mine`) {
		t.Errorf("%v", err)
	}
	l.Chains[0] = saying(t, `{"metrics":{"istio_requests_total":{"tags":{"mine":"request.host"}}}}`)
	if err := telemetry.Check(l); err != nil {
		t.Error(err)
	}
}
