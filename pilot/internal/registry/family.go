package registry

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
)

// familyMarks tell the scopes of proxies apart that listen at other addresses than IPv4's.
//
//nolint:gochecknoglobals // a constant
var familyMarks = [...]string{envoy.IPv4: "", envoy.DualStack: "-dual", envoy.IPv6: "-v6"}

// familiesOf are those of a proxy's addresses: all that it says it has, or the one in its name.
func familiesOf(node *corev3.Node) envoy.Families {
	texts := strings.Split(node.GetMetadata().GetFields()["INSTANCE_IPS"].GetStringValue(), ",")
	if _, rest, ok := strings.Cut(node.GetId(), "~"); ok && len(texts) == 1 && texts[0] == "" {
		texts[0], _, _ = strings.Cut(rest, "~")
	}
	var v4, v6 bool
	for _, text := range texts {
		if ip, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
			v4, v6 = v4 || ip.Unmap().Is4(), v6 || !ip.Unmap().Is4()
		}
	}
	switch {
	case v4 && v6:
		return envoy.DualStack
	case v6:
		return envoy.IPv6
	}
	return envoy.IPv4
}
