package envoy

import listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

// Families are the families of addresses that a proxy has, and listens at.
type Families int

// The families. A proxy of which nothing is known has IPv4.
const (
	IPv4 Families = iota
	DualStack
	IPv6
)

// anywhere has a listener take connections at all addresses of the proxy.
func (f Families) anywhere(l *listenerv3.Listener, port uint32) {
	const all4, all6 = "0.0.0.0", "::"
	switch f {
	case IPv6:
		l.Address = socketAddress(all6, port)
	case DualStack:
		l.Address = socketAddress(all4, port)
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: socketAddress(all6, port)}}
	default:
		l.Address = socketAddress(all4, port)
	}
}
