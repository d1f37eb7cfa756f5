package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// Type URLs of what is published.
const (
	AddressType       = "type.googleapis.com/istio.workload.Address"
	WorkloadType      = "type.googleapis.com/istio.workload.Workload"
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
)

func (r *Registry) deriveResources() {
	name := func(d delta.Resource) string { return d.Name }
	same := coll.WithEqual(sameResource)
	services := coll.Map("addresses/services", r.serviceList, (*address).key, func(_ coll.Fetch, s *ambient.Service) (*address, bool) {
		return serviceAddress(s), true
	})
	r.addresses = coll.Join("addresses", r.workloads, services)
	own := coll.Map("authorizations/policies", r.policyList, name, func(_ coll.Fetch, p *ambient.Policy) (delta.Resource, bool) {
		if p.Proto == nil {
			return delta.Resource{}, false
		}
		return encodePolicy(p.Proto), true
	}, same)
	converted := coll.FlatMap("authorizations/peers", r.peerAuths, name, func(f coll.Fetch, p *securityv1.PeerAuthentication) []delta.Resource {
		mesh := r.meshFor(f)
		var out []delta.Resource
		for _, a := range ambient.PeerAuthorizations(mesh, p, r.peerAuthsOf(f, mesh, p.Namespace)) {
			out = append(out, encodePolicy(a))
		}
		return out
	}, same)
	r.authz = coll.Join("authorizations", converted, own)
}

// Implied returns the groups that an on-demand client gets unasked: the workloads of its own node.
func Implied(node *corev3.Node, typeURL string) []string {
	name := node.GetMetadata().GetFields()["NODE_NAME"].GetStringValue()
	if name == "" || typeURL != AddressType {
		return nil
	}
	return []string{nodeGroup(name)}
}

// encodePolicy leaves the version out: policies are sent again on every reconnect.
func encodePolicy(a *security.Authorization) delta.Resource {
	return encode(AuthorizationType, a.Namespace+"/"+a.Name, a, false)
}

// encode marshals once; the version is the hash of the content.
func encode(typeURL, name string, m proto.Message, versioned bool) delta.Resource {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		// Only a string that is not UTF-8 can do that, and decoding has refused those.
		panic(fmt.Sprintf("marshal %s %s: %v", typeURL, name, err))
	}
	d := delta.Resource{Name: name, Any: &anypb.Any{TypeUrl: typeURL, Value: content}}
	if versioned {
		d.Version = versionOf(content)
	}
	return d
}

func versionOf(content []byte) string { return strconv.FormatUint(xxhash.Sum64(content), 16) }

func sameResource(a, b delta.Resource) bool {
	return a.Name == b.Name && a.Version == b.Version && string(a.Any.GetValue()) == string(b.Any.GetValue()) &&
		slices.Equal(a.Aliases, b.Aliases) && slices.Equal(a.Groups, b.Groups)
}

// workloadAliases are network/ip; what shares its address with the node is not found by it.
func workloadAliases(w *workload.Workload) []string {
	if w.NetworkMode == workload.NetworkMode_HOST_NETWORK {
		return nil
	}
	var out []string
	for _, a := range w.Addresses {
		if ip, ok := netip.AddrFromSlice(a); ok {
			out = append(out, w.Network+"/"+ip.String())
		}
	}
	return out
}

// serviceAliases are network/ip, or network/ip/length.
func serviceAliases(s *workload.Service) []string {
	var out []string
	for _, a := range s.Addresses {
		ip, ok := netip.AddrFromSlice(a.Address)
		if !ok {
			continue
		}
		alias := a.Network + "/" + ip.String()
		if a.Length != nil {
			alias += "/" + strconv.FormatUint(uint64(a.GetLength()), 10)
		}
		out = append(out, alias)
	}
	return out
}

// Publisher takes the resources of a type and their changes. It must be quick, and must not call back.
type Publisher interface {
	Publish(typeURL string, changed []delta.Resource, removed []string)
	// PublishScope takes changes of a scope that belong together.
	PublishScope(scope string, updates ...server.Update)
	// WithdrawScope says that what a scope was made for is gone.
	WithdrawScope(scope string)
}

// PublishTo hands over everything now and every change from now on, until stop is called.
func (r *Registry) PublishTo(p Publisher) (stop func()) {
	r.setFeed(func(w *workloadFeed) { w.publisher = p })
	stops := []func(){
		r.publishScopes(p),
		r.publishSecrets(p),
		func() { r.setFeed(func(w *workloadFeed) { w.publisher = nil }) },
		publish(p, AuthorizationType, r.authz, func(d delta.Resource) delta.Resource { return d }),
		publish(p, AddressType, r.addresses, (*address).resource),
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

func publish[T any](p Publisher, typeURL string, of coll.Collection[T], resource func(T) delta.Resource) (stop func()) {
	return of.Register(func(events []coll.Event[T]) {
		var changed []delta.Resource
		var removed []string
		for _, e := range events {
			if e.New != nil {
				changed = append(changed, resource(*e.New))
			} else {
				removed = append(removed, e.Key)
			}
		}
		p.Publish(typeURL, changed, removed)
	})
}
