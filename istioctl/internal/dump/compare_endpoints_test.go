package dump_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

// endpointsOf is a dump with one cluster; each locality is "zone priority address…".
func endpointsOf(t *testing.T, extra string, localities ...string) *dump.Envoy {
	t.Helper()
	var groups []string
	for _, l := range localities {
		words := strings.Fields(l)
		var hosts []string
		for _, a := range words[2:] {
			hosts = append(hosts, fmt.Sprintf(`{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":8080}}}%s}`, a, extra))
		}
		groups = append(groups, fmt.Sprintf(`{"locality":{"region":"eu","zone":%q},"priority":%s,"lb_endpoints":[%s]}`, words[0], words[1], strings.Join(hosts, ",")))
	}
	out, err := dump.ReadEnvoy(fmt.Appendf(nil, `{"configs":[
{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump"},
{"@type":"type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
 "static_endpoint_configs":[{"endpoint_config":{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment","cluster_name":"xds-grpc"}}],
 "dynamic_endpoint_configs":[{"endpoint_config":{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment","cluster_name":"outbound|80||server","endpoints":[%s]}}]}]}`,
		strings.Join(groups, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCompareEndpointsOfZones: a proxy has the endpoints that it should when they are in the same zones, of the same priorities; how they
// are written does not count.
func TestCompareEndpointsOfZones(t *testing.T) {
	t.Parallel()
	want := endpointsOf(t, "", "a 0 10.0.0.1 10.0.0.2", "b 1 10.0.1.1")
	const shown = `,"health_status":"UNHEALTHY","load_balancing_weight":1`
	for name, c := range map[string]struct {
		have *dump.Envoy
		says []string
	}{
		"same":       {endpointsOf(t, shown, "b 1 10.0.1.1", "a 0 10.0.0.2 10.0.0.1"), nil},
		"other zone": {endpointsOf(t, shown, "a 0 10.0.0.1", "b 1 10.0.0.2 10.0.1.1"), []string{"-10.0.0.2:8080 locality eu/a priority 0 weight 1", "+10.0.0.2:8080 locality eu/b priority 1 weight 1"}},
		"priority":   {endpointsOf(t, shown, "a 1 10.0.0.1 10.0.0.2", "b 0 10.0.1.1"), []string{"-10.0.1.1:8080 locality eu/b priority 1 weight 1", "+10.0.1.1:8080 locality eu/b priority 0 weight 1"}},
		"missing":    {endpointsOf(t, shown, "a 0 10.0.0.1 10.0.0.2"), []string{"-10.0.1.1:8080 locality eu/b priority 1 weight 1"}},
		"weight":     {endpointsOf(t, `,"load_balancing_weight":3`, "a 0 10.0.0.1 10.0.0.2", "b 1 10.0.1.1"), []string{"+10.0.0.1:8080 locality eu/a priority 0 weight 3"}},
	} {
		sections := dump.Compare(want, c.have)
		i := slices.IndexFunc(sections, func(s dump.Difference) bool { return s.Section == "Endpoints" })
		if i < 0 {
			t.Errorf("%s: no section of endpoints: %v", name, sections)
			continue
		}
		got := sections[i].Lines
		if c.says == nil && len(got) > 0 {
			t.Errorf("%s: differs:\n%s", name, strings.Join(got, "\n"))
		}
		for _, line := range c.says {
			if !slices.Contains(got, line) {
				t.Errorf("%s: %q is not among\n%s", name, line, strings.Join(got, "\n"))
			}
		}
	}
	// A dump without endpoints says nothing about them.
	without, err := dump.ReadEnvoy([]byte(`{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range dump.Compare(want, without) {
		if s.Section == "Endpoints" {
			t.Error("compared with what is not there")
		}
	}
}
