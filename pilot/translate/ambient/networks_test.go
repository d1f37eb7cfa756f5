package ambient

import (
	"net/netip"
	"testing"
)

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	blocks := []NetworkBlock{{netip.MustParsePrefix("10.1.0.0/16"), "vms"}, {netip.MustParsePrefix("10.0.0.0/8"), "west"}}
	for _, c := range []struct {
		name    string
		mesh    Mesh
		labels  map[string]string
		address string
		want    string
	}{
		{"by the longest block", Mesh{Networks: blocks}, nil, "10.1.2.3", "vms"},
		{"by the other one", Mesh{Networks: blocks}, nil, "10.2.2.3", "west"},
		{"mapped", Mesh{Networks: blocks}, nil, "::ffff:10.2.2.3", "west"},
		{"in none", Mesh{Networks: blocks}, nil, "192.0.2.1", ""},
		{"without an address", Mesh{Networks: blocks}, nil, "", ""},
		{"the cluster's counts before", Mesh{Networks: blocks, Network: "main"}, nil, "10.1.2.3", "main"},
		{"the label counts before all", Mesh{Networks: blocks, Network: "main"}, map[string]string{labelNetwork: "own"}, "10.1.2.3", "own"},
	} {
		address, _ := netip.ParseAddr(c.address)
		if got := c.mesh.networkOf(c.labels, address); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if (Mesh{Networks: blocks}).Equal(Mesh{}) || !(Mesh{Networks: blocks}).Equal(Mesh{Networks: blocks}) {
		t.Error("networks do not count in comparisons")
	}
}
