package main

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

func asWorkload(w *workload.Workload) proto.Message {
	return &workload.Address{Type: &workload.Address_Workload{Workload: w}}
}

func asService(s *workload.Service) proto.Message {
	return &workload.Address{Type: &workload.Address_Service{Service: s}}
}

func port(service, target uint32) *workload.Port {
	return &workload.Port{ServicePort: service, TargetPort: target}
}

func TestCompare(t *testing.T) {
	length := uint32(24)
	principal := func(text string) *security.StringMatch {
		return &security.StringMatch{MatchType: &security.StringMatch_Exact{Exact: text}}
	}
	policy := func(clauses ...*security.Clause) *security.Authorization {
		return &security.Authorization{Rules: []*security.Rule{{Clauses: clauses}}}
	}
	clause := func(principals ...string) *security.Clause {
		m := &security.Match{}
		for _, p := range principals {
			m.Principals = append(m.Principals, principal(p))
		}
		return &security.Clause{Matches: []*security.Match{m}}
	}
	for name, c := range map[string]struct {
		ours, theirs proto.Message
		want         []string
	}{
		"the same":       {asWorkload(&workload.Workload{Uid: "u"}), asWorkload(&workload.Workload{Uid: "u"}), nil},
		"a scalar":       {asWorkload(&workload.Workload{Node: "a"}), asWorkload(&workload.Workload{Node: "b"}), []string{`r workload.node: ours "a", theirs "b"`}},
		"a default":      {asWorkload(&workload.Workload{Node: "a"}), asWorkload(&workload.Workload{}), []string{`r workload.node: ours "a", theirs ""`}},
		"an enumeration": {asWorkload(&workload.Workload{Status: workload.WorkloadStatus_UNHEALTHY}), asWorkload(&workload.Workload{}), []string{"r workload.status: ours UNHEALTHY, theirs HEALTHY"}},
		"a message that one has not": {
			asWorkload(&workload.Workload{Capacity: wrapperspb.UInt32(0)}), asWorkload(&workload.Workload{}), []string{"r workload.capacity: ours {}, theirs (absent)"},
		},
		"another kind of resource": {
			asWorkload(&workload.Workload{Name: "a"}), asService(&workload.Service{Name: "a"}),
			[]string{`r workload: ours {name: "a"}, theirs (absent)`, `r service: ours (absent), theirs {name: "a"}`},
		},
		"sets have no order": {
			asService(&workload.Service{SubjectAltNames: []string{"a", "b"}, Ports: []*workload.Port{port(1, 2), port(3, 4)}}),
			asService(&workload.Service{SubjectAltNames: []string{"b", "a"}, Ports: []*workload.Port{port(3, 4), port(1, 2)}}), nil,
		},
		"but what is there twice": {
			asService(&workload.Service{SubjectAltNames: []string{"a", "a"}}), asService(&workload.Service{SubjectAltNames: []string{"a"}}),
			[]string{`r service.subject_alt_names[]: ours "a", theirs (absent)`},
		},
		"ports are told apart by their numbers": {
			asService(&workload.Service{Ports: []*workload.Port{port(1, 2), port(3, 4)}}), asService(&workload.Service{Ports: []*workload.Port{port(3, 5), port(6, 7)}}),
			[]string{
				"r service.ports[]: ours {service_port: 1, target_port: 2}, theirs (absent)", "r service.ports[3].target_port: ours 4, theirs 5",
				"r service.ports[]: ours (absent), theirs {service_port: 6, target_port: 7}",
			},
		},
		"preferences have an order": {
			asService(&workload.Service{LoadBalancing: &workload.LoadBalancing{RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_NODE, workload.LoadBalancing_ZONE}}}),
			asService(&workload.Service{LoadBalancing: &workload.LoadBalancing{RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_ZONE, workload.LoadBalancing_NODE}}}),
			[]string{"r service.load_balancing.routing_preference: ours [NODE, ZONE], theirs [ZONE, NODE]"},
		},
		"addresses are written as people do": {
			asService(&workload.Service{Addresses: []*workload.NetworkAddress{{Address: []byte{10, 0, 0, 0}, Length: &length}}}), asService(&workload.Service{}),
			[]string{"r service.addresses[]: ours {address: 10.0.0.0, length: 24}, theirs (absent)"},
		},
		"maps": {
			asWorkload(&workload.Workload{Services: map[string]*workload.PortList{"both": {Ports: []*workload.Port{port(1, 2)}}, "ours": {}}}),
			asWorkload(&workload.Workload{Services: map[string]*workload.PortList{"both": {Ports: []*workload.Port{port(1, 3)}}, "theirs": {}}}),
			[]string{
				"r workload.services[both].ports[1].target_port: ours 2, theirs 3", "r workload.services[ours]: ours {}, theirs (absent)",
				"r workload.services[theirs]: ours (absent), theirs {}",
			},
		},
		"clauses and values have no order": {policy(clause("a", "b"), clause("c")), policy(clause("c"), clause("b", "a")), nil},
		"a value of a clause": {
			policy(clause("a", "b")), policy(clause("a")), []string{`r rules[].clauses[].matches[].principals[]: ours {exact: "b"}, theirs (absent)`},
		},
	} {
		var got []string
		for _, d := range compare(map[string]proto.Message{"r": c.ours}, map[string]proto.Message{"r": c.theirs}) {
			got = append(got, d.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestResourcesThatOneSideHasNot(t *testing.T) {
	a := asWorkload(&workload.Workload{Uid: "a"})
	got := compare(map[string]proto.Message{"1": a, "2": a}, map[string]proto.Message{"2": a, "3": a})
	if len(got) != 2 || got[0] != (difference{"1", "", text(a.ProtoReflect()), absent}) || got[1] != (difference{"3", "", absent, text(a.ProtoReflect())}) {
		t.Errorf("got %v", got)
	}
	if n := changes(map[string]proto.Message{"1": a, "2": a}, map[string]proto.Message{"2": a, "3": a}); n != 2 {
		t.Errorf("%d changes", n)
	}
}

func TestIntended(t *testing.T) {
	table, err := parseIntended([]byte(`
- {scenario: pods, path: workload\.node, ours: '"a"', why: because}
- {resource: address/x, path: "", theirs: .*v4.*, why: it is so, documented: as is said}
`), "it is as is said here")
	if err != nil {
		t.Fatal(err)
	}
	for text, c := range map[string]struct {
		scenario string
		d        difference
		want     int
	}{
		"the first":              {"pods", difference{"address/y", "workload.node", `"a"`, ""}, 0},
		"another scenario":       {"pods2", difference{"address/y", "workload.node", `"a"`, ""}, -1},
		"another value":          {"pods", difference{"address/y", "workload.node", `"aa"`, ""}, -1},
		"another field":          {"pods", difference{"address/y", "workload.nodes", `"a"`, ""}, -1},
		"the second":             {"any", difference{"address/x", "service.x", "", "{v4\n}"}, 1},
		"the second, of another": {"any", difference{"address/xx", "service.x", "", "{v4}"}, -1},
	} {
		e := find(table, c.scenario, c.d)
		if got := slices.Index(table, e); got != c.want {
			t.Errorf("%s: entry %d, want %d", text, got, c.want)
		}
	}
	for name, bad := range map[string]string{
		"no reason":            "- {path: x}",
		"an unknown field":     "- {why: x, field: y}",
		"no expression":        "- {why: x, path: '('}",
		"what nobody has said": "- {why: x, documented: other}",
	} {
		if _, err := parseIntended([]byte(bad), "said"); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestReport(t *testing.T) {
	table, err := parseIntended([]byte("- {path: workload\\.node, why: x}\n- {path: workload\\.name, why: y}"), "")
	if err != nil {
		t.Fatal(err)
	}
	resources := func(names ...string) map[string]proto.Message {
		out := map[string]proto.Message{}
		for _, name := range names {
			out[name] = asWorkload(&workload.Workload{})
		}
		return out
	}
	var out lines
	r := &report{out: &out, table: table}
	differences := []difference{{"1", "workload.node", "a", "b"}}
	if r.unexpected("s", differences) {
		t.Error("what is intended is unexpected")
	}
	r.step("s", "first", resources("1", "2"), resources("2", "1"), 2, differences)
	if !r.finish(false) || out.last() != "2 resources of 1 steps agree, 0 differ" {
		t.Errorf("printed %q", out)
	}
	if r.finish(true) {
		t.Error("an entry that is of no use is taken")
	}
	differences = append(differences, difference{"2", "workload.uid", "a", "b"}, difference{"2", "workload.hostname", "a", "b"}, difference{"3", "", "a", absent})
	if !r.unexpected("s", differences) {
		t.Error("what is not intended is expected")
	}
	r.step("s", "second", resources("1", "2", "3"), resources("1", "2"), 0, differences)
	if r.finish(false) || out.last() != "3 resources of 2 steps agree, 2 differ" {
		t.Errorf("printed %q", out)
	}
}

// lines are what is written.
type lines []string

// Write implements io.Writer, of one line each.
func (l *lines) Write(b []byte) (int, error) {
	*l = append(*l, string(b))
	return len(b), nil
}

func (l *lines) last() string {
	text := (*l)[len(*l)-1]
	return text[:len(text)-1]
}

func TestMarkers(t *testing.T) {
	s, err := parseScenario("markers", fmt.Appendf(nil, markers, 7))
	if err != nil || len(s.steps) != 1 || len(s.steps[0].actions) != 4 {
		t.Fatalf("%v, %+v", err, s)
	}
	state := map[string]proto.Message{
		"address/Kubernetes//Pod/marker/marker":          asWorkload(&workload.Workload{CanonicalRevision: "7"}),
		"address/marker/marker.marker.svc.cluster.local": asService(&workload.Service{Ports: []*workload.Port{port(7, 7)}}),
		"address/marker/marker.example.com":              asService(&workload.Service{Ports: []*workload.Port{port(7, 7)}}),
		"policy/marker/marker":                           &security.Authorization{Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{DestinationPorts: []uint32{7}}}}}}}},
	}
	if !marked(state, 7) || marked(state, 8) || marked(nil, 7) {
		t.Error("markers are not recognized")
	}
	for name := range state {
		rest := map[string]proto.Message{}
		for other, m := range state {
			if other != name {
				rest[other] = m
			}
		}
		if marked(rest, 7) {
			t.Errorf("%s is not waited for", name)
		}
	}
}
