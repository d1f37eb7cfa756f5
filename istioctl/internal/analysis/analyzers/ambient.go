package analyzers

import "github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"

// ambientAnalyzers look for what goes wrong between ztunnels and waypoints.
func ambientAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "ambient.WaypointAnalyzer", Description: "Checks that the waypoints which labels ask for are there, ready, and for them",
			Codes: []analysis.Code{analysis.ReferencedResourceNotFound, analysis.WaypointNotReady, analysis.WaypointAttachmentDenied, analysis.WaypointWrongTraffic, analysis.WaypointWithoutAmbient},
			Run:   waypoints,
		},
		{
			Name: "ambient.PolicyAnalyzer", Description: "Checks for authorization policies that ztunnel cannot enforce as they are written",
			Codes: []analysis.Code{analysis.L7AllowAtZtunnel, analysis.L7DenyAtZtunnel, analysis.ActionNotAtZtunnel},
			Run:   ztunnelPolicies,
		},
		{
			Name: "ambient.IdentityAnalyzer", Description: "Checks for policies at ztunnel that name callers whose identity will be a waypoint's",
			Codes: []analysis.Code{analysis.AllowWithoutWaypoint, analysis.DenyBypassedByWaypoint},
			Run:   identities,
		},
		{
			Name: "ambient.RouteAnalyzer", Description: "Checks for routes that no waypoint applies, and for hosts with routes of both APIs",
			Codes: []analysis.Code{analysis.IneffectivePolicy, analysis.RouteAndVirtualService},
			Run:   meshRoutes,
		},
		{
			Name: "ambient.EffectAnalyzer", Description: "Checks for objects that have no effect in the ambient mesh",
			Codes: []analysis.Code{analysis.IneffectivePolicy},
			Run:   withoutEffect,
		},
		{
			Name: "ambient.PeerAuthenticationAnalyzer", Description: "Checks whom STRICT refuses, and for modes that mean something else in the ambient mesh",
			Codes: []analysis.Code{analysis.StrictWithPlaintextPeers, analysis.DisableIsPermissive, analysis.IneffectivePolicy},
			Run:   peerAuthentications,
		},
		{
			Name: "ambient.EnrolmentAnalyzer", Description: "Checks that pods meant for the ambient mesh are in it",
			Codes: []analysis.Code{analysis.PodNotEnrolled, analysis.SidecarAndAmbient},
			Run:   enrolment,
		},
		{
			Name: "ambient.PortAnalyzer", Description: "Checks that ports with routes or policies about HTTP speak it",
			Codes: []analysis.Code{analysis.PortNotHTTP, analysis.PortProtocolUndeclared},
			Run:   httpPorts,
		},
		{
			Name: "ambient.LabelAnalyzer", Description: "Checks for labels of the mesh with values that there are not, or on objects where they do nothing",
			Codes: []analysis.Code{analysis.UnknownLabelValue, analysis.MisplacedLabel},
			Run:   meshLabels,
		},
		{
			Name: "ambient.TokenAnalyzer", Description: "Checks that tokens which policies look at are verified",
			Codes: []analysis.Code{analysis.TokensNotVerified},
			Run:   tokens,
		},
		{
			Name: "ambient.IngressAnalyzer", Description: "Checks for gateways that pass by a waypoint with policies or routes",
			Codes: []analysis.Code{analysis.WaypointIgnoredByGateways},
			Run:   ingressBypass,
		},
	}
}
