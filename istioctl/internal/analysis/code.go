package analysis

// Code names a kind of finding. IST codes are Istio's, with its names, levels and wording; ISM codes are this mesh's own.
type Code string

// The codes that can occur. docs/analyze.md tells of each what to do about it.
const (
	InternalError                    Code = "IST0001"
	Deprecated                       Code = "IST0002"
	ReferencedResourceNotFound       Code = "IST0101"
	NamespaceNotInjected             Code = "IST0102"
	PodMissingProxy                  Code = "IST0103"
	SchemaValidationError            Code = "IST0106"
	MisplacedAnnotation              Code = "IST0107"
	UnknownAnnotation                Code = "IST0108"
	ConflictingMeshHosts             Code = "IST0109"
	ConflictingSidecarSelectors      Code = "IST0110"
	MultipleSidecarsWithoutSelectors Code = "IST0111"
	DestinationPortRequired          Code = "IST0112"
	DeploymentAssociated             Code = "IST0116"
	PortNameConvention               Code = "IST0118"
	MultipleInjectionLabels          Code = "IST0123"
	InvalidAnnotation                Code = "IST0125"
	NoMatchingWorkloads              Code = "IST0127"
	NoServerVerification             Code = "IST0128"
	NoServerVerificationPort         Code = "IST0129"
	UnreachableRule                  Code = "IST0130"
	IneffectiveMatch                 Code = "IST0131"
	HostNotFoundInGateway            Code = "IST0132"
	SchemaWarning                    Code = "IST0133"
	ServiceEntryAddressesRequired    Code = "IST0134"
	DeprecatedAnnotation             Code = "IST0135"
	DeploymentConflictingPorts       Code = "IST0137"
	GatewayDuplicateCertificate      Code = "IST0138"
	IngressRouteRulesNotAffected     Code = "IST0140"
	InvalidApplicationUID            Code = "IST0144"
	ConflictingGateways              Code = "IST0145"
	ImageAutoWarning                 Code = "IST0146"
	ImageAutoError                   Code = "IST0147"
	JwtRoutingWithoutAuthentication  Code = "IST0149"
	ExternalNamePortName             Code = "IST0150"
	UnsupportedGatewayAPIVersion     Code = "IST0156"
	InvalidTelemetryProvider         Code = "IST0157"
	ConflictingTelemetrySelectors    Code = "IST0159"
	MultipleTelemetries              Code = "IST0160"
	InvalidGatewayCredential         Code = "IST0161"
	GatewayPortNotOnService          Code = "IST0162"
	ReferencedInternalGateway        Code = "IST0165"
	IneffectiveSelector              Code = "IST0166"
	IneffectivePolicy                Code = "IST0167"
	NegativeCondition                Code = "IST0171"
	SubsetSelectsNoPods              Code = "IST0173"
	UnknownDestinationRuleHost       Code = "IST0174"
	JwksURIUnrestricted              Code = "IST0175"
	GatewayAPIBelowMinimum           Code = "IST0176"
	ConflictingEntryProtocol         Code = "IST0177"

	L7AllowAtZtunnel          Code = "ISM0001"
	L7DenyAtZtunnel           Code = "ISM0002"
	ActionNotAtZtunnel        Code = "ISM0003"
	WaypointNotReady          Code = "ISM0004"
	WaypointAttachmentDenied  Code = "ISM0005"
	WaypointWrongTraffic      Code = "ISM0006"
	WaypointWithoutAmbient    Code = "ISM0007"
	RouteAndVirtualService    Code = "ISM0008"
	AllowWithoutWaypoint      Code = "ISM0009"
	DenyBypassedByWaypoint    Code = "ISM0010"
	StrictWithPlaintextPeers  Code = "ISM0011"
	DisableIsPermissive       Code = "ISM0012"
	PortNotHTTP               Code = "ISM0013"
	PortProtocolUndeclared    Code = "ISM0014"
	BackendNotGranted         Code = "ISM0015"
	PrincipalUnknown          Code = "ISM0016"
	PrincipalOtherTrustDomain Code = "ISM0017"
	PodNotEnrolled            Code = "ISM0018"
	SidecarAndAmbient         Code = "ISM0019"
	WaypointIgnoredByGateways Code = "ISM0020"
	UnknownLabelValue         Code = "ISM0021"
	MisplacedLabel            Code = "ISM0022"
	TokensNotVerified         Code = "ISM0023"
	KindNotServed             Code = "ISM0024"
	ListenerSetNotAllowed     Code = "ISM0025"
)

// Entry is what is known of a code.
type Entry struct {
	Code Code
	// Name is that under which the documentation has it.
	Name  string
	Level Level
	// Template is a format of fmt.
	Template string
}

// Entry returns what is known of the code; ok is false for one that cannot occur.
func (c Code) Entry() (e Entry, ok bool) {
	for _, e := range Codes() {
		if e.Code == c {
			return e, true
		}
	}
	return Entry{Code: c}, false
}

// Codes returns all that can occur, in order.
func Codes() []Entry { return append(istioCodes(), ownCodes()...) }

func istioCodes() []Entry {
	const unlabelled = "The namespace is not enabled for Istio injection. Run 'kubectl label namespace %s istio-injection=enabled' to enable it, or 'kubectl label namespace %s istio-injection=disabled' to explicitly mark it as not needing injection."
	const verification = "DestinationRule %s in namespace %s has TLS mode set to %s but no caCertificates are set to validate server identity for host: %s"
	const imageAuto = "%s %s contains `image: auto` but does not match any Istio injection webhook selectors."
	return []Entry{
		{InternalError, "InternalError", Error, "Internal error: %v"},
		{Deprecated, "Deprecated", Warning, "Deprecated: %s"},
		{ReferencedResourceNotFound, "ReferencedResourceNotFound", Error, "Referenced %s not found: %q"},
		{NamespaceNotInjected, "NamespaceNotInjected", Info, unlabelled + " Without sidecars, 'kubectl label namespace %s istio.io/dataplane-mode=ambient' makes it part of the mesh."},
		{PodMissingProxy, "PodMissingProxy", Warning, "The pod %s is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload."},
		{SchemaValidationError, "SchemaValidationError", Error, "Schema validation error: %v"},
		{MisplacedAnnotation, "MisplacedAnnotation", Warning, "Misplaced annotation: %s can only be applied to %s"},
		{UnknownAnnotation, "UnknownAnnotation", Warning, "Unknown annotation: %s"},
		{ConflictingMeshHosts, "ConflictingMeshGatewayVirtualServiceHosts", Error, "The VirtualServices %s associated with mesh gateway define the same host %s which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource."},
		{ConflictingSidecarSelectors, "ConflictingSidecarWorkloadSelectors", Error, "The Sidecars %v in namespace %q select the same workload pod %q, which can lead to undefined behavior."},
		{MultipleSidecarsWithoutSelectors, "MultipleSidecarsWithoutWorkloadSelectors", Error, "The Sidecars %v in namespace %q have no workload selector, which can lead to undefined behavior."},
		{DestinationPortRequired, "VirtualServiceDestinationPortSelectorRequired", Error, "This VirtualService routes to a service %q that exposes multiple ports %v. Specifying a port in the destination is required to disambiguate."},
		{DeploymentAssociated, "DeploymentAssociatedToMultipleServices", Warning, "This deployment %s is associated with multiple services using port %d but different protocols: %v"},
		{PortNameConvention, "PortNameIsNotUnderNamingConvention", Info, "Port name %s (port: %d, targetPort: %s) doesn't follow the naming convention of Istio port."},
		{MultipleInjectionLabels, "NamespaceMultipleInjectionLabels", Warning, "The namespace has more than one type of injection labels %v, which may lead to undefined behavior. Make sure only one injection label exists."},
		{InvalidAnnotation, "InvalidAnnotation", Warning, "Invalid annotation %s: %s"},
		{NoMatchingWorkloads, "NoMatchingWorkloadsFound", Warning, "No matching workloads for this resource with the following labels: %s"},
		{NoServerVerification, "NoServerCertificateVerificationDestinationLevel", Warning, verification},
		{NoServerVerificationPort, "NoServerCertificateVerificationPortLevel", Warning, verification + " at port %s"},
		{UnreachableRule, "VirtualServiceUnreachableRule", Warning, "VirtualService rule %v not used (%s)."},
		{IneffectiveMatch, "VirtualServiceIneffectiveMatch", Info, "VirtualService rule %v match %v is not used (duplicate/overlapping match in rule %v)."},
		{HostNotFoundInGateway, "VirtualServiceHostNotFoundInGateway", Warning, "one or more host %v defined in VirtualService %s not found in Gateway %s."},
		{SchemaWarning, "SchemaWarning", Warning, "Schema validation warning: %v"},
		{ServiceEntryAddressesRequired, "ServiceEntryAddressesRequired", Warning, "ServiceEntry addresses are required for this protocol."},
		{DeprecatedAnnotation, "DeprecatedAnnotation", Info, "Annotation %q has been deprecated%s and may not work in future Istio versions."},
		{DeploymentConflictingPorts, "DeploymentConflictingPorts", Warning, "This deployment %s is associated with multiple services %v using targetPort %q but different ports: %v."},
		{GatewayDuplicateCertificate, "GatewayDuplicateCertificate", Warning, "Duplicate certificate in multiple gateways %v may cause 404s if clients re-use HTTP2 connections."},
		{IngressRouteRulesNotAffected, "IngressRouteRulesNotAffected", Warning, "Subset in virtual service %s has no effect on ingress gateway %s requests"},
		{InvalidApplicationUID, "InvalidApplicationUID", Warning, "User ID (UID) 1337 is reserved for the sidecar proxy."},
		{ConflictingGateways, "ConflictingGateways", Error, "Conflict with gateways %s (workload selector %s, port %s, hosts %v)."},
		{ImageAutoWarning, "ImageAutoWithoutInjectionWarning", Warning, imageAuto},
		{ImageAutoError, "ImageAutoWithoutInjectionError", Error, imageAuto},
		{JwtRoutingWithoutAuthentication, "JwtClaimBasedRoutingWithoutRequestAuthN", Error, "The virtual service uses the JWT claim based routing (key: %s) but found no request authentication for the gateway (%s) pod (%s). The request authentication must first be applied for the gateway pods to validate the JWT token and make the claims available for routing."},
		{ExternalNamePortName, "ExternalNameServiceTypeInvalidPortName", Warning, "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for ports serving TCP protocol from being forwarded correctly"},
		{UnsupportedGatewayAPIVersion, "UnsupportedGatewayAPIVersion", Error, "The Gateway API CRD version %v is lower than the minimum version: %v"},
		{InvalidTelemetryProvider, "InvalidTelemetryProvider", Warning, "The Telemetry %v in namespace %q with empty providers will be ignored."},
		{ConflictingTelemetrySelectors, "ConflictingTelemetryWorkloadSelectors", Error, "The Telemetries %v in namespace %q select the same workload pod %q, which can lead to undefined behavior."},
		{MultipleTelemetries, "MultipleTelemetriesWithoutWorkloadSelectors", Error, "The Telemetries %v in namespace %q have no workload selector, which can lead to undefined behavior."},
		{InvalidGatewayCredential, "InvalidGatewayCredential", Error, "The credential referenced by the Gateway %s in namespace %s is invalid, which can cause the traffic not to work as expected."},
		{GatewayPortNotOnService, "GatewayPortNotDefinedOnService", Warning, "The gateway is listening on a target port (port %d) that is not defined in the Service associated with its workload instances (Pod selector %s). If you need to access the gateway port through the gateway Service, it will not be available."},
		{ReferencedInternalGateway, "ReferencedInternalGateway", Warning, "Gateway reference in VirtualService %s is to an implementation-generated internal Gateway: %s."},
		{IneffectiveSelector, "IneffectiveSelector", Warning, "Ineffective selector on Kubernetes Gateway %s. Use the TargetRef field instead."},
		{IneffectivePolicy, "IneffectivePolicy", Warning, "The policy has no impact: %s."},
		{NegativeCondition, "NegativeConditionStatus", Warning, "A condition with a negative status is present: type=%s, reason=%s, message=%s."},
		{SubsetSelectsNoPods, "DestinationRuleSubsetNotSelectPods", Error, "The Subset %s defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream)."},
		{UnknownDestinationRuleHost, "UnknownDestinationRuleHost", Warning, "The host %s defined in the DestinationRule does not match any services in the mesh."},
		{JwksURIUnrestricted, "JwksUriFetchUnrestricted", Warning, "BLOCKED_CIDRS_IN_JWKS_URIS is not configured but %d RequestAuthentication resource(s) exist (%s). Consider configuring it to restrict JWKS URI fetches to trusted networks."},
		{GatewayAPIBelowMinimum, "GatewayAPICRDVersionBelowMinimum", Warning, "Gateway API CRD %q is at version %q but Istio requires at least %q; resources of this kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version."},
		{ConflictingEntryProtocol, "ConflictingServiceEntryProtocol", Warning, "Multiple ServiceEntries (%s) define the same host %q and port %d with conflicting protocols (%s)."},
	}
}

func ownCodes() []Entry {
	return []Entry{
		{L7AllowAtZtunnel, "L7AllowAtZtunnel", Warning, "The policy is enforced by ztunnel, which knows no HTTP (found: %s): rules with it allow nothing, so that requests they are meant to allow are refused. Attach the policy to a waypoint by targetRefs%s."},
		{L7DenyAtZtunnel, "L7DenyAtZtunnel", Error, "The policy is enforced by ztunnel, which knows no HTTP (found: %s): %s. Attach the policy to a waypoint by targetRefs%s."},
		{ActionNotAtZtunnel, "ActionNotAtZtunnel", Error, "The policy's action %s is not enforced by ztunnel: it has no effect. Attach the policy to a waypoint by targetRefs%s."},
		{WaypointNotReady, "WaypointNotReady", Warning, "The waypoint %s is not ready: %s. %s. See 'istioctl waypoint status %s -n %s'."},
		{WaypointAttachmentDenied, "WaypointAttachmentDenied", Error, "The waypoint %s does not take namespace %s: set allowedRoutes.namespaces of its listener to All, or to a Selector that matches the namespace's labels."},
		{WaypointWrongTraffic, "WaypointWrongTraffic", Warning, "The waypoint %s is not for what is addressed to a %s (%s: %s): it is passed by. Label the Gateway %s=%s, or all."},
		{WaypointWithoutAmbient, "WaypointWithoutAmbient", Warning, "The namespace uses waypoint %s but is not part of the ambient mesh: pods that are called by their own address, and callers outside the mesh, pass it by. Label the namespace istio.io/dataplane-mode=ambient."},
		{RouteAndVirtualService, "RouteAndVirtualService", Warning, "%s %s and VirtualService %s are both for host %s; only one of the two APIs decides, which is undefined. Remove one of them."},
		{AllowWithoutWaypoint, "AllowWithoutWaypoint", Warning, "The policy allows callers by their identity, but what it is for is reached through waypoint %s: ztunnel sees the waypoint's identity, and refuses. Add principal %q, or attach the policy to the waypoint by targetRefs."},
		{DenyBypassedByWaypoint, "DenyBypassedByWaypoint", Error, "The policy denies callers by their identity, but what it is for is reached through waypoint %s: ztunnel sees the waypoint's identity (%s), so the callers get through. Attach the policy to the waypoint by targetRefs."},
		{StrictWithPlaintextPeers, "StrictWithPlaintextPeers", Info, "STRICT refuses whoever is not part of the mesh, such as pods of namespaces %s. If they are to get in, label them istio.io/dataplane-mode=ambient, or use PERMISSIVE."},
		{DisableIsPermissive, "DisableIsPermissive", Info, "DISABLE means PERMISSIVE for pods of the ambient mesh: ztunnel always offers mutual TLS."},
		{PortNotHTTP, "PortNotHTTP", Warning, "%s has rules about HTTP, but port %s of service %s is declared as %s: they do not apply to it. Name the port http-…, or set its appProtocol to http."},
		{PortProtocolUndeclared, "PortProtocolUndeclared", Info, "%s has rules about HTTP, but nothing says what port %s of service %s speaks, so that each connection is probed. Name the port http-…, or set its appProtocol to http."},
		{BackendNotGranted, "BackendNotGranted", Error, "%s %s/%s is in another namespace, which does not allow this: requests get status 500. Create a ReferenceGrant in namespace %s from %s of namespace %s."},
		{PrincipalUnknown, "PrincipalUnknown", Warning, "The policy names principal %q, but there is no ServiceAccount %s in namespace %s."},
		{PrincipalOtherTrustDomain, "PrincipalOtherTrustDomain", Warning, "The policy names principal %q, which is not of the mesh's trust domain (%s): no workload of this mesh matches."},
		{PodNotEnrolled, "PodNotEnrolled", Warning, "The pod %s is meant to be in the ambient mesh but its traffic is not redirected to ztunnel: %s."},
		{SidecarAndAmbient, "SidecarAndAmbient", Warning, "The pod %s has a sidecar, so that the ambient mesh leaves it alone, although it is labelled for it. Remove the sidecar's injection label and restart the pod, or label it istio.io/dataplane-mode=none."},
		{WaypointIgnoredByGateways, "WaypointIgnoredByGateways", Info, "What comes through gateway %s passes by waypoint %s, and with it its policies and routes, because the service is not labelled istio.io/ingress-use-waypoint=true."},
		{UnknownLabelValue, "UnknownLabelValue", Warning, "Label %s: %q is none of %s, and has no effect."},
		{MisplacedLabel, "MisplacedLabel", Warning, "Label %s has no effect on a %s: put it on %s."},
		{TokensNotVerified, "TokensNotVerified", Warning, "The policy looks at tokens (%s), but no RequestAuthentication verifies them for %s: no request has any. Create one with the same targetRefs."},
		{KindNotServed, "KindNotServed", Warning, "%s has no effect in this mesh: %s."},
		{ListenerSetNotAllowed, "ListenerSetNotAllowed", Warning, "Gateway %s does not take this ListenerSet, so that nobody serves its listeners: %s. Set spec.allowedListeners.namespaces of the Gateway."},
	}
}
