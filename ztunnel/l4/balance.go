package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

const passthroughMode = workload.LoadBalancing_PASSTHROUGH

// errUnknownPort: the service has no such port, nor has any endpoint of it.
var errUnknownPort = errors.New("unknown service port")

// balance picks an endpoint of a service for a connection to one of its ports: of those with the port, healthy as the
// service demands, the ones nearest by its routing preference; among these at random, in proportion to capacity. What is to be
// avoided is left out, unless nothing else is left.
func balance(s *State, c Conn, service *Service, port uint16) (endpoint, error) {
	all := s.Endpoints(service.ServiceKey).List()
	if len(c.Avoid) > 0 {
		others := slices.DeleteFunc(slices.Clone(all), func(w *Workload) bool { return slices.Contains(c.Avoid, w.UID) })
		if chosen, err := draw(others, c, service, port); err == nil {
			return chosen, nil
		}
	}
	return draw(all, c, service, port)
}

func draw(all []*Workload, c Conn, service *Service, port uint16) (endpoint, error) {
	source := c.SourceWorkload
	view := survey{bestRank: -1}
	for _, w := range all {
		view.consider(service, source, w, port)
	}
	if view.bestRank < 0 {
		return endpoint{}, view.explain(service, port)
	}
	// Endpoints without weight take no part unless none has any.
	at := c.Rand(max(view.weight, view.count))
	for _, w := range all {
		target, rank, ok := eligible(service, source, w, port)
		if !ok || rank != view.bestRank {
			continue
		}
		share := uint64(w.Capacity)
		if view.weight == 0 {
			share = 1
		}
		if at < share {
			return endpoint{workload: w, ip: pickIP(w, c), port: target}, nil
		}
		at -= share
	}
	return endpoint{}, view.explain(service, port)
}

// survey is what the first pass over the endpoints learns.
type survey struct {
	bestRank      int
	weight, count uint64 // of the endpoints of the best rank
	withPort      int    // endpoints that have the port
	unhealthy     int    // of those, left out for their health
}

func (v *survey) consider(service *Service, source, w *Workload, port uint16) {
	if _, ok := targetPort(service, w, port); ok {
		v.withPort++
		if !healthy(service, w) {
			v.unhealthy++
		}
	}
	_, rank, ok := eligible(service, source, w, port)
	switch {
	case !ok || rank < v.bestRank:
		return
	case rank > v.bestRank:
		v.bestRank, v.weight, v.count = rank, 0, 0
	}
	v.weight += uint64(w.Capacity)
	v.count++
}

// explain says why nothing was eligible.
func (v *survey) explain(service *Service, port uint16) error {
	if v.withPort == 0 {
		if _, ok := ports(service.Ports).target(port); !ok {
			return fmt.Errorf("service %s: %w %d", service.ServiceKey, errUnknownPort, port)
		}
		return fmt.Errorf("%w: service %s has no endpoints for port %d", ErrNoHealthyUpstream, service.ServiceKey, port)
	}
	return fmt.Errorf("%w: none of the %d endpoints of service %s for port %d may be used (%d not healthy)",
		ErrNoHealthyUpstream, v.withPort, service.ServiceKey, port, v.unhealthy)
}

// eligible reports whether w may receive a connection, with the port to use there and how near it is: the number of
// leading scopes of the routing preference that it shares with the source.
func eligible(service *Service, source, w *Workload, port uint16) (target uint16, rank int, ok bool) {
	target, ok = targetPort(service, w, port)
	if !ok || !healthy(service, w) {
		return 0, 0, false
	}
	for _, scope := range service.RoutingPreference {
		if !sameScope(scope, source, w) {
			break
		}
		rank++
	}
	switch service.Mode {
	case workload.LoadBalancing_STRICT:
		return target, rank, rank == len(service.RoutingPreference)
	case workload.LoadBalancing_FAILOVER:
		return nearer(source, w, target, rank)
	default:
		return nearer(source, w, target, 0)
	}
}

// nearer puts endpoints that can be reached at all before those in other networks.
func nearer(source, w *Workload, target uint16, rank int) (uint16, int, bool) {
	if w.Network == source.Network {
		rank += len(workload.LoadBalancing_Scope_name)
	}
	return target, rank, true
}

func healthy(service *Service, w *Workload) bool {
	return w.Healthy || service.HealthPolicy == workload.LoadBalancing_ALLOW_ALL
}

// targetPort maps a service port to the workload's: by the workload's own map, else by the service's. Zero there is a
// port known only by name, which a workload that does not list it does not have.
func targetPort(service *Service, w *Workload, port uint16) (uint16, bool) {
	if backing := w.Backs(service.ServiceKey); backing != nil {
		if target, ok := ports(backing.Ports).target(port); ok && target != 0 {
			return target, true
		}
	}
	target, ok := ports(service.Ports).target(port)
	return target, ok && target != 0
}

func sameScope(scope workload.LoadBalancing_Scope, a, b *Workload) bool {
	switch scope {
	case workload.LoadBalancing_REGION:
		return a.Locality.Region == b.Locality.Region
	case workload.LoadBalancing_ZONE:
		return a.Locality.Zone == b.Locality.Zone
	case workload.LoadBalancing_SUBZONE:
		return a.Locality.Subzone == b.Locality.Subzone
	case workload.LoadBalancing_NODE:
		return a.Node == b.Node
	case workload.LoadBalancing_CLUSTER:
		return a.ClusterID == b.ClusterID
	case workload.LoadBalancing_NETWORK:
		return a.Network == b.Network
	}
	return false
}

// pickIP prefers an address of the family the client used, as its pod certainly has that one.
func pickIP(w *Workload, c Conn) netip.Addr {
	if len(w.Addresses) == 0 {
		return netip.Addr{}
	}
	for _, ip := range w.Addresses {
		if ip.Is4() == c.Dst.Addr().Unmap().Is4() {
			return ip
		}
	}
	return w.Addresses[0]
}
