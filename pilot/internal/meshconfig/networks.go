package meshconfig

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	meshapi "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// networksKey is under which a ConfigMap has the mesh's networks.
const networksKey = "meshNetworks"

// Networks are what meshNetworks says about where endpoints are. The zero value says nothing.
type Networks struct {
	// Registries are the networks of whole clusters, by the clusters' names.
	Registries map[string]string
	// Blocks are those of addresses, the longest prefix first.
	Blocks []ambient.NetworkBlock
	// Unused are the networks whose gateways are named, which nothing here reads: the label topology.istio.io/network of a Gateway does.
	Unused []string
}

// ParseNetworks reads the YAML of meshNetworks. Fields that are not known are ignored, as those of the mesh configuration.
func ParseNetworks(text []byte) (Networks, error) {
	fail := func(err error) (Networks, error) { return Networks{}, fmt.Errorf("parse %s: %w", networksKey, err) }
	raw, err := yaml.YAMLToJSON(text)
	if err != nil {
		return fail(err)
	}
	var out Networks
	if string(raw) == "null" {
		return out, nil
	}
	var proto meshapi.MeshNetworks
	if err := kube.UnmarshalMessage(raw, &proto, protojson.UnmarshalOptions{DiscardUnknown: true}); err != nil {
		return fail(err)
	}
	for _, name := range slices.Sorted(maps.Keys(proto.GetNetworks())) {
		network := proto.GetNetworks()[name]
		if len(network.GetGateways()) > 0 {
			out.Unused = append(out.Unused, name)
		}
		for i, e := range network.GetEndpoints() {
			if err := out.add(name, e); err != nil {
				return fail(fmt.Errorf("networks.%s.endpoints[%d].%w", name, i, err))
			}
		}
	}
	slices.SortStableFunc(out.Blocks, func(a, b ambient.NetworkBlock) int { return cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()) })
	return out, nil
}

func (n *Networks) add(network string, e *meshapi.Network_NetworkEndpoints) error {
	switch from := e.GetNe().(type) {
	case *meshapi.Network_NetworkEndpoints_FromRegistry:
		if other := n.Registries[from.FromRegistry]; other != "" && other != network {
			return fmt.Errorf("fromRegistry: the cluster %q is in the network %q already", from.FromRegistry, other)
		}
		if n.Registries == nil {
			n.Registries = map[string]string{}
		}
		n.Registries[from.FromRegistry] = network
	case *meshapi.Network_NetworkEndpoints_FromCidr:
		prefix, err := netip.ParsePrefix(from.FromCidr)
		if err != nil {
			return fmt.Errorf("fromCidr: %q is no block of addresses", from.FromCidr)
		}
		n.Blocks = append(n.Blocks, ambient.NetworkBlock{Prefix: prefix.Masked(), Network: network})
	}
	return nil
}
