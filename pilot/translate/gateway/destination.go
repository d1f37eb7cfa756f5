package gateway

import (
	"slices"

	networkingapi "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// destination names the cluster of a VirtualService's destination. One that does not exist is named too: its requests are
// answered by 503, as those of a service without pods. ok is false when there is no host at all.
func (t *translation) destination(origin route.Origin, namespace string, path *field.Path, d *networkingapi.Destination) (target destinationTarget, ok bool) {
	if d.GetHost() == "" {
		t.problem(origin, path.Child("host"), "the destination has no host")
		return destinationTarget{}, false
	}
	target.host = t.mesh.FullHost(d.Host, namespace)
	if !validHost(target.host) {
		t.problem(origin, path.Child("host"), "%q is no host name", d.Host)
		return destinationTarget{}, false
	}
	svc := t.view.Service(target.host, namespace)
	switch {
	case d.Port.GetNumber() != 0:
		target.port = d.Port.Number
	case svc != nil && len(svc.Ports) == 1:
		target.port = svc.Ports[0].Number
	default:
		target.port = t.port
	}
	target.subset = d.Subset
	switch {
	case svc == nil:
		t.missing(origin, path.Child("host"), "there is no service %s", target.host)
	case target.port != 0 && !slices.ContainsFunc(svc.Ports, func(p Port) bool { return p.Number == target.port }):
		t.missing(origin, path.Child("port"), "%s has no port %d", target.host, target.port)
	case d.Subset != "" && !t.hasSubset(target):
		t.missing(origin, path.Child("subset"), "no DestinationRule of %s has the subset %s", target.host, d.Subset)
	}
	target.cluster = t.cluster(target.host, target.port, target.subset)
	return target, true
}

type destinationTarget struct {
	host    string
	port    uint32
	subset  string
	cluster string
}

func (t *translation) hasSubset(d destinationTarget) bool {
	rule := t.view.DestinationRule(d.host, t.namespace)
	return rule != nil && slices.ContainsFunc(rule.Spec.Subsets, func(s *networkingapi.Subset) bool { return s.GetName() == d.subset })
}
