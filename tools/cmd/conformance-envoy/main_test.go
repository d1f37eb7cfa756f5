package main

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestFixturesCanBeRead(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	fixtures, err := loadFixtures(filepath.Join(root, "tests", "conformance"), filepath.Join(root, "samples"), regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	bed := &testbed{}
	hand := 0
	for _, f := range fixtures {
		for _, r := range f.requests {
			hand++
			if _, err := bed.client(r.As); err != nil {
				t.Errorf("%s: %s: %v", f.name, r.Name, err)
			}
			if r.Via == "" {
				if _, err := bed.destination(r.To); err != nil {
					t.Errorf("%s: %s: %v", f.name, r.Name, err)
				}
			}
			if r.Via == "gateway" && !f.hasGateway() {
				t.Errorf("%s: %s goes to a gateway that is not there", f.name, r.Name)
			}
		}
	}
	if hand < 150 {
		t.Errorf("there are only %d requests in the tables", hand)
	}
}

func TestWorldIsYAML(t *testing.T) {
	for i, doc := range strings.Split(worldYAML("service", nil, variation{Localities: map[string]string{"httpbin-v1": "a/b"}, Unready: []string{"httpbin-v2"}}), "---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Errorf("document %d: %v\n%s", i, err, doc)
		}
	}
}

func TestRandomRequestsAreTheSameEachTime(t *testing.T) {
	f := &fixture{name: "x", random: 50}
	a, b := f.randomRequests(), f.randomRequests()
	for i := range a {
		if a[i].Name != b[i].Name {
			t.Errorf("request %d is %s, then %s", i, a[i].Name, b[i].Name)
		}
	}
}

func TestUnmet(t *testing.T) {
	got := &result{
		status: 200, header: http.Header{"X-A": {"1"}}, body: "text", attempts: []string{"a-v1", "b-v1"},
		seen: &seen{Workload: "a-v1", Path: "/p", Headers: map[string]string{"x-b": "2"}},
	}
	met := []want{
		{},
		{Status: 200, Workload: "a-v1", Path: "/p", Body: "ex", Mirrored: "b-v1", Attempts: 2, AnyOf: []string{"x", "a-v1"}},
		{Headers: map[string]string{"X-B": "2", "x-c": "-"}, Response: map[string]string{"x-a": "*", "x-d": "-"}},
	}
	for _, w := range met {
		if out := unmet(got, w); len(out) != 0 {
			t.Errorf("%+v: %v", w, out)
		}
	}
	missed := []want{
		{Status: 201},
		{Workload: "b-v1"},
		{Headers: map[string]string{"x-b": "-"}},
		{Headers: map[string]string{"x-c": "*"}},
		{Response: map[string]string{"x-a": "2"}},
		{Refused: true},
		{Mirrored: "c-v1"},
		{Attempts: 1},
		{MinMS: 5},
		{AnyOf: []string{"x"}},
		{Body: "other"},
	}
	for _, w := range missed {
		if out := unmet(got, w); len(out) != 1 {
			t.Errorf("%+v: %v", w, out)
		}
	}
	if out := unmet(&result{refused: "closed"}, want{Status: 200}); len(out) != 1 {
		t.Errorf("a refusal is no answer: %v", out)
	}
	if out := unmet(&result{refused: "closed"}, want{Refused: true}); len(out) != 0 {
		t.Errorf("a refusal that is expected: %v", out)
	}
}

func TestFactsIgnoreWhatIsDifferentEachTime(t *testing.T) {
	one := &result{status: 200, header: http.Header{"Date": {"a"}, "X-Envoy-Upstream-Service-Time": {"1"}, "X-Echo-Workload": {"a-v1"}}, seen: &seen{
		Workload: "a-v1", Headers: map[string]string{"x-request-id": "11111111-2222-3333-4444-555555555555", "x-echo-key": "k1"},
	}}
	two := &result{status: 200, header: http.Header{"Date": {"b"}, "X-Envoy-Upstream-Service-Time": {"7"}, "X-Echo-Workload": {"a-v2"}}, seen: &seen{
		Workload: "a-v2", Headers: map[string]string{"x-request-id": "21111111-2222-3333-4444-555555555555", "x-echo-key": "k2"},
	}}
	if d := differences(facts(one, want{}), facts(two, want{})); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if d := differences(facts(one, want{Workload: "a-v1"}), facts(two, want{Workload: "a-v1"})); len(d) == 0 {
		t.Error("a workload that is expected must be the same")
	}
	two.seen.Headers["x-more"] = "1"
	if d := differences(facts(one, want{}), facts(two, want{})); len(d) != 1 || !strings.HasPrefix(d[0], "isthmus:") {
		t.Errorf("%v", d)
	}
}

func TestOfRequestsAtOnceTheLastIsNobodysDoing(t *testing.T) {
	ok, full := &result{status: 200, body: "a"}, &result{status: 503, body: "overflow"}
	lastOK := &result{status: 200, body: "a", answers: []*result{ok, full}}
	lastFull := &result{status: 503, body: "overflow", answers: []*result{ok, full}}
	if d := differences(facts(lastOK, want{}), facts(lastFull, want{})); len(d) != 0 {
		t.Errorf("%v", d)
	}
	other := &result{status: 200, body: "a", answers: []*result{ok, {status: 503, body: "other"}}}
	if d := differences(facts(lastOK, want{}), facts(other, want{})); len(d) != 2 {
		t.Errorf("both refuse, with other words: %v", d)
	}
}

func TestWhoAnswersTheLastOfManyRequestsIsADraw(t *testing.T) {
	from := func(workload string, shares map[string]int) *result {
		return &result{status: 200, header: http.Header{"X-Echo-Workload": {workload}}, seen: &seen{Workload: workload}, shares: shares}
	}
	wanted := want{Shares: map[string]int{"a-v1": 25, "b-v1": 75}}
	one, two := from("a-v1", map[string]int{"a-v1": 27, "b-v1": 73}), from("b-v1", map[string]int{"a-v1": 24, "b-v1": 76})
	if d := differences(facts(one, wanted), facts(two, wanted)); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if d := append(unmet(one, wanted), unmet(two, wanted)...); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if d := unmet(from("b-v1", map[string]int{"b-v1": 100}), wanted); len(d) != 2 {
		t.Errorf("one that always asks the same: %v", d)
	}
}

func TestGeneratedRequestsMatch(t *testing.T) {
	path := "/exact"
	m := routeMatch{
		Path:            &path,
		Headers:         []headerMatch{{Name: ":method", StringMatch: &stringMatch{Exact: "POST"}}, {Name: "a", StringMatch: &stringMatch{Prefix: "b"}}},
		QueryParameters: []headerMatch{{Name: "q", StringMatch: &stringMatch{Exact: "1"}}},
	}
	r, ok := m.request()
	if !ok || r.Path != "/exact?q=1" || r.Method != "POST" || r.Headers["a"] != "bmore" {
		t.Errorf("%+v, %v", r, ok)
	}
	if _, ok := (routeMatch{}).request(); ok {
		t.Error("a regular expression has no request")
	}
}

func TestLabelsOfOneLine(t *testing.T) {
	if got := flow(map[string]string{"a/b": "c"}); got != `{a/b: "c"}` {
		t.Error(got)
	}
}
