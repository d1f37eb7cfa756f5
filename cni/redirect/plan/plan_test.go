package plan_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

var update = flag.Bool("update", false, "write the golden files")

func TestPlan(t *testing.T) {
	without := func(edit func(*plan.Config)) plan.Config {
		c := plan.DefaultConfig()
		edit(&c)
		return c
	}
	for name, tt := range map[string]struct {
		pod    plan.Pod
		config plan.Config
	}{
		"default":        {plan.Pod{}, plan.DefaultConfig()},
		"no-dns":         {plan.Pod{}, without(func(c *plan.Config) { c.DNS = false })},
		"no-ipv6":        {plan.Pod{}, without(func(c *plan.Config) { c.IPv6 = false })},
		"bypass-inbound": {plan.Pod{BypassInbound: true}, plan.DefaultConfig()},
		"reroute":        {plan.Pod{Reroute: "k6t-eth0,net1"}, plan.DefaultConfig()},
		"reroute-less":   {plan.Pod{Reroute: "net1", BypassInbound: true, DNS: plan.Off}, without(func(c *plan.Config) { c.IPv6 = false })},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan.Plan(tt.pod, tt.config).String()
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the rules differ from %s:\n%s", file, got)
			}
		})
	}
}

func TestPodsOverruleTheNode(t *testing.T) {
	for annotation, want := range map[string]plan.Choice{"true": plan.On, "false": plan.Off, "perhaps": plan.Inherit, "": plan.Inherit} {
		if got := plan.PodFromAnnotations(map[string]string{plan.AnnotationDNSCapture: annotation}).DNS; got != want {
			t.Errorf("%q: %v, want %v", annotation, got, want)
		}
	}
	on := plan.DefaultConfig()
	off := on
	off.DNS = false
	if plan.Plan(plan.Pod{DNS: plan.Off}, on).String() != plan.Plan(plan.Pod{}, off).String() {
		t.Error("a pod's own word does not count")
	}
}
