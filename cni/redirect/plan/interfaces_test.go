package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

func TestInterfaces(t *testing.T) {
	for value, want := range map[string]struct {
		names   string
		problem string // of the only one
	}{
		"":                         {"", ""},
		" , ,":                     {"", ""},
		"k6t-eth0":                 {"k6t-eth0", ""},
		"net2, net1 ,net2,eth0.10": {"eth0.10 net1 net2", ""},
		"veth+":                    {"", "wildcards"},
		"veth*,net1":               {"net1", "wildcards"},
		"+":                        {"", "wildcards"},
		"a/b,net1":                 {"net1", "no name"},
		"a b":                      {"", "no name"},
		"a\nCOMMIT":                {"", "no name"},
		`a"`:                       {"", "no name"},
		"-j":                       {"", "no name"},
		"..":                       {"", "no name"},
		"ü":                        {"", "no name"},
		"fifteen-bytes-x":          {"fifteen-bytes-x", ""},
		"sixteen-bytes-xx":         {"", "15 bytes"},
		"lo":                       {"", "own interface"},
		"eth0,net1":                {"net1", "own interface"},
	} {
		names, problems := plan.Interfaces(value)
		if strings.Join(names, " ") != want.names {
			t.Errorf("%q: names %q, want %q", value, names, want.names)
		}
		if got := strings.Join(problems, "\n"); (want.problem == "") != (got == "") || !strings.Contains(got, want.problem) || len(problems) > 1 {
			t.Errorf("%q: problems %q, want %q", value, problems, want.problem)
		}
		p := plan.PodFromAnnotations(map[string]string{plan.AnnotationReroute: value})
		if !slices.Equal(p.Rerouted(), names) || p.Reroute == "" && p != (plan.Pod{}) {
			t.Errorf("%q: the pod has %q", value, p.Rerouted())
		}
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = "net" + string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	if names, problems := plan.Interfaces(strings.Join(many, ",")); len(names) != 32 || len(problems) != 8 {
		t.Errorf("%d names, %d problems", len(names), len(problems))
	}
}

func FuzzInterfaces(f *testing.F) {
	f.Add("k6t-eth0,net1")
	f.Add("a+, b/c,\x00,eth0")
	f.Fuzz(func(t *testing.T, value string) {
		names, _ := plan.Interfaces(value)
		for _, name := range names {
			if name == "" || len(name) > 15 || strings.ContainsAny(name, " \t\r\n\x00,/+\"'\\:") || name == "lo" || name == "eth0" {
				t.Errorf("%q counts", name)
			}
		}
		again, problems := plan.Interfaces(strings.Join(names, ","))
		if !slices.Equal(again, names) || len(problems) > 0 {
			t.Errorf("%q reads as %q, %q", names, again, problems)
		}
	})
}
