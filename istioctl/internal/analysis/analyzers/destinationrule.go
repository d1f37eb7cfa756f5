package analyzers

import (
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
)

func destinationRuleAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "destinationrule.PodNotSelectedAnalyzer", Description: "Checks if the pods selected by a destination rule's subsets exist",
			Codes: []analysis.Code{analysis.SubsetSelectsNoPods, analysis.UnknownDestinationRuleHost},
			Run:   subsets,
		},
		{
			Name: "destinationrule.CaCertificateAnalyzer", Description: "Checks if caCertificates is set when TLS mode is SIMPLE/MUTUAL",
			Codes: []analysis.Code{analysis.NoServerVerification, analysis.NoServerVerificationPort},
			Run:   caCertificates,
		},
	}
}

func subsets(s *analysis.Snapshot) (out analysis.Messages) {
	if !s.Known("Service") || !s.Known("ServiceEntry") {
		return nil
	}
	for r, dr := range analysis.All[*networkingv1.DestinationRule](s) {
		host := dr.Spec.GetHost()
		h := s.Host(host, dr.Namespace)
		if h == nil {
			if !strings.HasPrefix(host, "*") || !s.Covered(host, dr.Namespace) {
				out.Add(analysis.UnknownDestinationRuleHost, r, "spec.host", host)
			}
			continue
		}
		behind, complete := workloadsBehind(s, h)
		if !complete {
			continue
		}
		for i, sub := range dr.Spec.GetSubsets() {
			if !anyMatches(sub.GetLabels(), behind) {
				out.Add(analysis.SubsetSelectsNoPods, r, at("spec.subsets", i), sub.GetName())
			}
		}
	}
	return out
}

// workloadsBehind returns the labels of what a host leads to; complete is whether all of it is known.
func workloadsBehind(s *analysis.Snapshot, h *analysis.Host) (labels []map[string]string, complete bool) {
	if h.Entry != nil {
		for _, e := range h.Entry.Spec.GetEndpoints() {
			labels = append(labels, e.GetLabels())
		}
	}
	if len(h.Selector) > 0 {
		for _, w := range s.Select(h.Namespace, h.Selector) {
			labels = append(labels, w.Labels)
		}
		// Files of a service without what runs it say nothing about its pods.
		return labels, s.Known("Pod") && (s.Live || len(labels) > 0)
	}
	return labels, len(labels) > 0
}

func anyMatches(selector map[string]string, all []map[string]string) bool {
	for _, labels := range all {
		if analysis.Matches(selector, labels) {
			return true
		}
	}
	return false
}

func caCertificates(s *analysis.Snapshot) (out analysis.Messages) {
	for r, dr := range analysis.All[*networkingv1.DestinationRule](s) {
		policy := dr.Spec.GetTrafficPolicy()
		if tls := policy.GetTls(); unverified(s, dr, tls) {
			out.Add(analysis.NoServerVerification, r, "spec.trafficPolicy.tls", dr.Name, dr.Namespace, tls.GetMode(), dr.Spec.GetHost())
		}
		for i, p := range policy.GetPortLevelSettings() {
			if tls := p.GetTls(); unverified(s, dr, tls) {
				out.Add(analysis.NoServerVerificationPort, r, at("spec.trafficPolicy.portLevelSettings", i)+".tls", dr.Name, dr.Namespace, tls.GetMode(), dr.Spec.GetHost(), strconv.Itoa(int(p.GetPort().GetNumber())))
			}
		}
	}
	return out
}

// unverified tells whether nobody can vouch for the server: the system's authorities do that for hosts of the internet.
func unverified(s *analysis.Snapshot, dr *networkingv1.DestinationRule, tls *networkingapi.ClientTLSSettings) bool {
	if m := tls.GetMode(); tls == nil || m != networkingapi.ClientTLSSettings_SIMPLE && m != networkingapi.ClientTLSSettings_MUTUAL {
		return false
	}
	if tls.GetInsecureSkipVerify().GetValue() {
		return true
	}
	if tls.GetCaCertificates() != "" || tls.GetCredentialName() != "" {
		return false
	}
	h := s.Host(dr.Spec.GetHost(), dr.Namespace)
	external := h != nil && h.Entry != nil && h.Entry.Spec.GetLocation() == networkingapi.ServiceEntry_MESH_EXTERNAL
	return !external
}
