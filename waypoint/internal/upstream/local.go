package upstream

import (
	"fmt"
	"net/netip"
)

// LocalError says that an endpoint is at the proxy's own host: whoever may write an endpoint could reach what listens there for the
// proxy itself.
type LocalError struct{ To netip.AddrPort }

// Error implements error.
func (e *LocalError) Error() string {
	return fmt.Sprintf("%s is the proxy's own, or of its link only: endpoints there are refused, unless ISTHMUS_LOCAL_ENDPOINTS allows them", e.To)
}

// refuseLocal refuses addresses that are another place for everybody who dials them.
func refuseLocal(to netip.AddrPort) error {
	a := to.Addr().Unmap()
	if a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return &LocalError{to}
	}
	return nil
}

// ownPort is whether a port is one where proxies listen for those who run them: administration, metrics, health.
func ownPort(port uint16) bool {
	switch port {
	case 15000, 15004, 15020, 15021, 15090:
		return true
	}
	return false
}
