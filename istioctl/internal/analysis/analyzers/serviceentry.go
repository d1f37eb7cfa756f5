package analyzers

import (
	"maps"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

func serviceEntryAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "serviceentry.ProtocolAddressesAnalyzer", Description: "Checks if ServiceEntry addresses are set when they are needed to tell its traffic from other traffic",
			Codes: []analysis.Code{analysis.ServiceEntryAddressesRequired},
			Run:   entryAddresses,
		},
		{
			Name: "serviceentry.ConflictingServiceEntryProtocolAnalyzer", Description: "Checks if multiple ServiceEntries define the same host and port with different protocols",
			Codes: []analysis.Code{analysis.ConflictingEntryProtocol},
			Run:   entryProtocols,
		},
		{
			Name: "serviceentry.WildcardAnalyzer", Description: "Checks that hosts which only a waypoint can resolve have one",
			Codes: []analysis.Code{analysis.IneffectivePolicy},
			Run:   dynamicEntries,
		},
		{
			Name: "serviceentry.VisibilityAnalyzer", Description: "Checks for ServiceEntries that the mesh lets nobody know of",
			Codes: []analysis.Code{analysis.IneffectivePolicy},
			Run:   hiddenEntries,
		},
	}
}

func entryAddresses(s *analysis.Snapshot) (out analysis.Messages) {
	for r, se := range analysis.All[*networkingv1.ServiceEntry](s) {
		if len(se.Spec.GetAddresses()) > 0 || len(se.Status.GetAddresses()) > 0 || allocated(se) {
			continue
		}
		for i, p := range se.Spec.GetPorts() {
			if protocol := strings.ToUpper(p.GetProtocol()); protocol == "" || protocol == "TCP" {
				out.Add(analysis.ServiceEntryAddressesRequired, r, at("spec.ports", i))
			}
		}
	}
	return out
}

// allocated tells whether the control plane gives the entry addresses of its own: where it may, and when it is to go on to the host
// that the client asked for by name.
func allocated(se *networkingv1.ServiceEntry) bool {
	const label = "networking.istio.io/enable-autoallocate-ip"
	return se.Labels[label] == "true" && se.Spec.GetResolution() != networkingapi.ServiceEntry_NONE
}

func entryProtocols(s *analysis.Snapshot) (out analysis.Messages) {
	type place struct {
		scope, host string
		port        uint32
	}
	type use struct {
		r        *analysis.Resource
		protocol string
	}
	uses := map[place][]use{}
	for r, se := range analysis.All[*networkingv1.ServiceEntry](s) {
		for _, scope := range scopes(se) {
			for _, host := range se.Spec.GetHosts() {
				for _, p := range se.Spec.GetPorts() {
					k := place{scope, host, p.GetNumber()}
					uses[k] = append(uses[k], use{r, strings.ToUpper(p.GetProtocol())})
				}
			}
		}
	}
	for k, list := range uses {
		if k.scope != "*" {
			list = slices.Concat(list, uses[place{"*", k.host, k.port}])
		}
		protocols, names := map[string]bool{}, map[string]bool{}
		for _, u := range list {
			protocols[u.protocol], names[u.r.FullName()] = true, true
		}
		if len(protocols) < 2 || len(names) < 2 {
			continue
		}
		for _, u := range list {
			out.Add(analysis.ConflictingEntryProtocol, u.r, "spec.ports", strings.Join(slices.Sorted(maps.Keys(names)), ", "), k.host, k.port, strings.Join(slices.Sorted(maps.Keys(protocols)), ", "))
		}
	}
	return out
}

// scopes are the namespaces that see an entry, * for all.
func scopes(se *networkingv1.ServiceEntry) []string {
	if len(se.Spec.GetExportTo()) == 0 || slices.Contains(se.Spec.GetExportTo(), "*") {
		return []string{"*"}
	}
	var out []string
	for _, to := range se.Spec.GetExportTo() {
		if to == "." {
			to = se.Namespace
		}
		out = append(out, to)
	}
	return out
}

func dynamicEntries(s *analysis.Snapshot) (out analysis.Messages) {
	for r, se := range analysis.All[*networkingv1.ServiceEntry](s) {
		if se.Spec.GetResolution() == networkingapi.ServiceEntry_DYNAMIC_DNS && s.Visibility(se) != ambient.VisibleToNone && s.BindEntry(se).Ref == nil {
			out.Add(analysis.IneffectivePolicy, r, "spec.resolution", "resolution DYNAMIC_DNS needs a waypoint, and the ServiceEntry has none; label it istio.io/use-waypoint")
		}
	}
	return out
}

func hiddenEntries(s *analysis.Snapshot) (out analysis.Messages) {
	for r, se := range analysis.All[*networkingv1.ServiceEntry](s) {
		if s.Visibility(se) == ambient.VisibleToNone {
			out.Add(analysis.IneffectivePolicy, r, "spec.hosts", "meshConfig.serviceEntryVisibility gives the ServiceEntries of namespace "+se.Namespace+
				" the visibility NONE: no proxy is told of it; have a policy there make them NAMESPACE or PUBLIC")
		}
	}
	return out
}
