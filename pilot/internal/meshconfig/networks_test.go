package meshconfig

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

func TestNetworks(t *testing.T) {
	t.Parallel()
	got, err := ParseNetworks([]byte(`
networks:
  west:
    endpoints: [{fromRegistry: Kubernetes}, {fromCidr: 10.0.0.0/8}]
    gateways: [{address: 192.0.2.1, port: 15443}]
  vms:
    endpoints: [{fromCidr: 10.1.0.0/16}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []ambient.NetworkBlock{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Network: "vms"}, {Prefix: netip.MustParsePrefix("10.0.0.0/8"), Network: "west"}}
	if !slices.Equal(got.Blocks, want) || got.Registries["Kubernetes"] != "west" || !slices.Equal(got.Unused, []string{"west"}) {
		t.Errorf("got %+v", got)
	}

	settings := Default()
	settings.Networks = got
	if m := settings.Mesh("Kubernetes", "other", "cluster.local"); m.Network != "west" {
		t.Errorf("the cluster is in %q", m.Network)
	}
	if m := settings.Mesh("elsewhere", "other", "cluster.local"); m.Network != "other" || !slices.Equal(m.Networks, want) {
		t.Errorf("another cluster: %+v", m.Mesh)
	}

	for _, empty := range []string{"", "networks: {}", "networks:"} {
		if n, err := ParseNetworks([]byte(empty)); err != nil || len(n.Blocks)+len(n.Registries) > 0 {
			t.Errorf("%q: %+v, %v", empty, n, err)
		}
	}
	for text, part := range map[string]string{
		"networks: {a: {endpoints: [{fromCidr: 10.0.0.0/99}]}}":                                                            `networks.a.endpoints[0].fromCidr: "10.0.0.0/99"`,
		"networks: {a: {endpoints: [{fromRegistry: one}]}, b: {endpoints: [{fromCidr: 10.0.0.0/8}, {fromRegistry: one}]}}": `networks.b.endpoints[1].fromRegistry: the cluster "one" is in the network "a" already`,
		"networks: 7": "parse meshNetworks",
	} {
		if _, err := ParseNetworks([]byte(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
