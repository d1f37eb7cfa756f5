package admin

import (
	"net/netip"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
)

// matchJSON is one match of a policy; what it does not mention is left out.
type matchJSON struct {
	Namespaces          []map[string]any     `json:"namespaces,omitempty"`
	NotNamespaces       []map[string]any     `json:"notNamespaces,omitempty"`
	ServiceAccounts     []serviceAccountJSON `json:"serviceAccounts,omitempty"`
	NotServiceAccounts  []serviceAccountJSON `json:"notServiceAccounts,omitempty"`
	Principals          []map[string]any     `json:"principals,omitempty"`
	NotPrincipals       []map[string]any     `json:"notPrincipals,omitempty"`
	SourceIPs           []string             `json:"sourceIps,omitempty"`
	NotSourceIPs        []string             `json:"notSourceIps,omitempty"`
	DestinationIPs      []string             `json:"destinationIps,omitempty"`
	NotDestinationIPs   []string             `json:"notDestinationIps,omitempty"`
	DestinationPorts    []uint32             `json:"destinationPorts,omitempty"`
	NotDestinationPorts []uint32             `json:"notDestinationPorts,omitempty"`
}

type serviceAccountJSON struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

func dumpMatch(m *security.Match) matchJSON {
	return matchJSON{
		Namespaces: dumpStrings(m.GetNamespaces()), NotNamespaces: dumpStrings(m.GetNotNamespaces()),
		Principals: dumpStrings(m.GetPrincipals()), NotPrincipals: dumpStrings(m.GetNotPrincipals()),
		ServiceAccounts: dumpAccounts(m.GetServiceAccounts()), NotServiceAccounts: dumpAccounts(m.GetNotServiceAccounts()),
		SourceIPs: dumpPrefixes(m.GetSourceIps()), NotSourceIPs: dumpPrefixes(m.GetNotSourceIps()),
		DestinationIPs: dumpPrefixes(m.GetDestinationIps()), NotDestinationIPs: dumpPrefixes(m.GetNotDestinationIps()),
		DestinationPorts: m.GetDestinationPorts(), NotDestinationPorts: m.GetNotDestinationPorts(),
	}
}

func dumpStrings(list []*security.StringMatch) []map[string]any {
	var out []map[string]any
	for _, s := range list {
		switch t := s.GetMatchType().(type) {
		case *security.StringMatch_Exact:
			out = append(out, map[string]any{"Exact": t.Exact})
		case *security.StringMatch_Prefix:
			out = append(out, map[string]any{"Prefix": t.Prefix})
		case *security.StringMatch_Suffix:
			out = append(out, map[string]any{"Suffix": t.Suffix})
		case *security.StringMatch_Presence:
			out = append(out, map[string]any{"Presence": []any{}})
		}
	}
	return out
}

func dumpAccounts(list []*security.ServiceAccountMatch) []serviceAccountJSON {
	var out []serviceAccountJSON
	for _, s := range list {
		out = append(out, serviceAccountJSON{s.GetNamespace(), s.GetServiceAccount()})
	}
	return out
}

func dumpPrefixes(list []*security.Address) []string {
	var out []string
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.GetAddress()); ok {
			out = append(out, netip.PrefixFrom(ip, int(a.GetLength())).String())
		}
	}
	return out
}
