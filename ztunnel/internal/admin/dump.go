package admin

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/inpod"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Dump is what /config_dump shows; names and forms are the field's, so that its tools read it.
type Dump struct {
	Workloads      []workloadJSON          `json:"workloads"`
	Services       []serviceJSON           `json:"services"`
	Policies       []policyJSON            `json:"policies"`
	StagedServices map[string]any          `json:"stagedServices"`
	StaticConfig   map[string]any          `json:"staticConfig"`
	Version        telemetry.Build         `json:"version"`
	Config         any                     `json:"config"`
	Certificates   []certificateJSON       `json:"certificates"`
	WorkloadState  map[string]podStateJSON `json:"workloadState"`
}

type workloadJSON struct {
	UID                   string         `json:"uid"`
	IPs                   []string       `json:"workloadIps"`
	Waypoint              *gatewayJSON   `json:"waypoint,omitempty"`
	NetworkGateway        *gatewayJSON   `json:"networkGateway,omitempty"`
	Protocol              string         `json:"protocol"`
	NetworkMode           string         `json:"networkMode"`
	Name                  string         `json:"name"`
	Namespace             string         `json:"namespace"`
	TrustDomain           string         `json:"trustDomain"`
	ServiceAccount        string         `json:"serviceAccount"`
	Network               string         `json:"network"`
	WorkloadName          string         `json:"workloadName"`
	WorkloadType          string         `json:"workloadType"`
	CanonicalName         string         `json:"canonicalName"`
	CanonicalRevision     string         `json:"canonicalRevision"`
	Hostname              string         `json:"hostname"`
	Node                  string         `json:"node"`
	NativeTunnel          bool           `json:"nativeTunnel,omitempty"`
	ApplicationTunnel     *appTunnelJSON `json:"applicationTunnel,omitempty"`
	AuthorizationPolicies []string       `json:"authorizationPolicies,omitempty"`
	Status                string         `json:"status"`
	ClusterID             string         `json:"clusterId"`
	Locality              localityJSON   `json:"locality"`
	Services              []string       `json:"services,omitempty"`
	Capacity              uint32         `json:"capacity"`
}

type gatewayJSON struct {
	Destination   string `json:"destination"`
	HBONEMTLSPort uint16 `json:"hboneMtlsPort"`
}

type weightedGatewayJSON struct {
	Destination gatewayJSON `json:"destination"`
	Weight      uint32      `json:"weight"`
}

type appTunnelJSON struct {
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
}

type localityJSON struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Subzone string `json:"subzone,omitempty"`
}

type serviceJSON struct {
	Name              string                  `json:"name"`
	Namespace         string                  `json:"namespace"`
	Hostname          string                  `json:"hostname"`
	VIPs              []string                `json:"vips"`
	CIDRVIPs          []cidrJSON              `json:"cidrVips,omitempty"`
	Ports             map[string]uint16       `json:"ports"`
	Endpoints         map[string]endpointJSON `json:"endpoints"`
	SubjectAltNames   []string                `json:"subjectAltNames,omitempty"`
	Waypoint          *gatewayJSON            `json:"waypoint,omitempty"`
	WeightedWaypoints []weightedGatewayJSON   `json:"weightedWaypoints,omitempty"`
	LoadBalancer      *loadBalancerJSON       `json:"loadBalancer,omitempty"`
	IPFamilies        string                  `json:"ipFamilies,omitempty"`
	Canonical         bool                    `json:"canonical"`
	Visibility        string                  `json:"visibility"`
}

type cidrJSON struct {
	Network string `json:"network"`
	CIDR    string `json:"cidr"`
}

type endpointJSON struct {
	WorkloadUID string            `json:"workloadUid"`
	Port        map[string]uint16 `json:"port"`
	Status      string            `json:"status"`
}

type loadBalancerJSON struct {
	RoutingPreferences []string `json:"routingPreferences"`
	Mode               string   `json:"mode"`
	HealthPolicy       string   `json:"healthPolicy"`
}

type policyJSON struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Scope     string          `json:"scope"`
	Action    string          `json:"action"`
	DryRun    bool            `json:"dryRun,omitempty"`
	Rules     [][][]matchJSON `json:"rules"`
}

type certificateJSON struct {
	Identity  string     `json:"identity"`
	State     string     `json:"state"`
	CertChain []certJSON `json:"certChain"`
	RootCerts []certJSON `json:"rootCerts"`
}

type certJSON struct {
	PEM            string `json:"pem"`
	SerialNumber   string `json:"serialNumber"`
	ValidFrom      string `json:"validFrom"`
	ExpirationTime string `json:"expirationTime"`
}

type podStateJSON struct {
	State       string           `json:"state"`
	Info        podInfoJSON      `json:"info"`
	Connections *connectionsJSON `json:"connections,omitempty"`
}

type podInfoJSON struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

type connectionsJSON struct {
	Inbound  []proxy.ConnInfo `json:"inbound"`
	Outbound []proxy.ConnInfo `json:"outbound"`
}

// newDump is pure: equal inputs give equal dumps.
func newDump(state *l4.State, identities []certs.State, pods []inpod.Info, build telemetry.Build, config any) Dump {
	d := Dump{
		Workloads: []workloadJSON{}, Services: []serviceJSON{}, Policies: []policyJSON{}, Certificates: []certificateJSON{},
		StagedServices: map[string]any{}, StaticConfig: map[string]any{}, WorkloadState: map[string]podStateJSON{},
		Version: build, Config: config,
	}
	for w := range state.Workloads() {
		d.Workloads = append(d.Workloads, dumpWorkload(w))
	}
	for s := range state.Services() {
		d.Services = append(d.Services, dumpService(s, state.Endpoints(s.ServiceKey)))
	}
	for p := range state.Policies() {
		d.Policies = append(d.Policies, dumpPolicy(p))
	}
	for _, c := range identities {
		d.Certificates = append(d.Certificates, dumpCertificate(c))
	}
	for _, p := range pods {
		d.WorkloadState[p.UID] = dumpPod(p)
	}
	return d
}

func dumpWorkload(w *l4.Workload) workloadJSON {
	out := workloadJSON{
		UID: w.UID, IPs: texts(w.Addresses), Waypoint: dumpGateway(w.Waypoint), NetworkGateway: dumpGateway(w.NetworkGateway),
		Protocol: "TCP", NetworkMode: "Standard", Name: w.Name, Namespace: w.Namespace, TrustDomain: w.TrustDomain,
		ServiceAccount: w.ServiceAccount, Network: w.Network, WorkloadName: w.WorkloadName,
		WorkloadType: strings.ToLower(w.Type.String()), CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		Hostname: w.Hostname, Node: w.Node, NativeTunnel: w.NativeTunnel, AuthorizationPolicies: w.Policies,
		Status: health(w.Healthy), ClusterID: w.ClusterID, Locality: localityJSON(w.Locality), Capacity: w.Capacity,
	}
	if w.HBONE {
		out.Protocol = "HBONE"
	}
	if w.HostNetwork {
		out.NetworkMode = "HostNetwork"
	}
	if t := w.AppTunnel; t != nil {
		out.ApplicationTunnel = &appTunnelJSON{Protocol: t.Protocol.String(), Port: t.Port}
	}
	for _, b := range w.Services {
		out.Services = append(out.Services, b.Service.String())
	}
	return out
}

func texts(addrs []netip.Addr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

func health(ok bool) string {
	if ok {
		return "Healthy"
	}
	return "Unhealthy"
}

func dumpGateway(g *l4.Gateway) *gatewayJSON {
	if g == nil {
		return nil
	}
	return &gatewayJSON{Destination: g.String(), HBONEMTLSPort: g.HBONEPort}
}

func dumpService(s *l4.Service, endpoints *l4.Endpoints) serviceJSON {
	out := serviceJSON{
		Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname, VIPs: []string{}, Ports: map[string]uint16{},
		Endpoints: map[string]endpointJSON{}, SubjectAltNames: s.SubjectAltNames, Waypoint: dumpGateway(s.Waypoint),
		Canonical: s.Canonical, Visibility: "Public", IPFamilies: familiesName(s.IPFamilies),
	}
	if s.NamespaceOnly {
		out.Visibility = "Namespace"
	}
	for _, vip := range s.VIPs {
		out.VIPs = append(out.VIPs, vip.String())
	}
	for _, c := range s.CIDRs {
		out.CIDRVIPs = append(out.CIDRVIPs, cidrJSON{Network: c.Network, CIDR: c.Prefix.String()})
	}
	for _, p := range s.Ports {
		out.Ports[strconv.Itoa(int(p.Service))] = p.Target
	}
	for _, w := range s.WeightedWaypoints {
		out.WeightedWaypoints = append(out.WeightedWaypoints, weightedGatewayJSON{Destination: *dumpGateway(&w.Gateway), Weight: w.Weight})
	}
	if len(s.RoutingPreference) > 0 || s.Mode != workload.LoadBalancing_UNSPECIFIED_MODE || s.HealthPolicy != workload.LoadBalancing_ONLY_HEALTHY {
		lb := &loadBalancerJSON{RoutingPreferences: []string{}, Mode: "Standard", HealthPolicy: camel(s.HealthPolicy.String())}
		if s.Mode != workload.LoadBalancing_UNSPECIFIED_MODE {
			lb.Mode = camel(s.Mode.String())
		}
		for _, scope := range s.RoutingPreference {
			lb.RoutingPreferences = append(lb.RoutingPreferences, camel(scope.String()))
		}
		out.LoadBalancer = lb
	}
	for w := range endpoints.All() {
		e := endpointJSON{WorkloadUID: w.UID, Port: map[string]uint16{}, Status: health(w.Healthy)}
		if b := w.Backs(s.ServiceKey); b != nil {
			for _, p := range b.Ports {
				e.Port[strconv.Itoa(int(p.Service))] = p.Target
			}
		}
		out.Endpoints[w.UID] = e
	}
	return out
}

func familiesName(f workload.IPFamilies) string {
	switch f {
	case workload.IPFamilies_DUAL:
		return "Dual"
	case workload.IPFamilies_IPV4_ONLY:
		return "IPv4"
	case workload.IPFamilies_IPV6_ONLY:
		return "IPv6"
	}
	return ""
}

// camel turns ALLOW_ALL into AllowAll.
func camel(upper string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.ToLower(upper), "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

func dumpPolicy(p *authz.Policy) policyJSON {
	source := p.Proto()
	out := policyJSON{
		Name: source.GetName(), Namespace: source.GetNamespace(), Scope: camel(source.GetScope().String()), Action: "Allow",
		DryRun: source.GetDryRun(), Rules: [][][]matchJSON{},
	}
	if source.GetScope() == security.Scope_WORKLOAD_SELECTOR {
		out.Scope = "WorkloadSelector"
	}
	if source.GetAction() == security.Action_DENY {
		out.Action = "Deny"
	}
	for _, rule := range source.GetRules() {
		clauses := [][]matchJSON{}
		for _, clause := range rule.GetClauses() {
			matches := []matchJSON{}
			for _, m := range clause.GetMatches() {
				matches = append(matches, dumpMatch(m))
			}
			clauses = append(clauses, matches)
		}
		out.Rules = append(out.Rules, clauses)
	}
	return out
}

func dumpCertificate(c certs.State) certificateJSON {
	out := certificateJSON{Identity: c.Identity.String(), State: c.State, CertChain: []certJSON{}, RootCerts: []certJSON{}}
	if c.Workload == nil {
		return out
	}
	for _, der := range c.Workload.Certificate.Certificate {
		if cert, err := x509.ParseCertificate(der); err == nil {
			out.CertChain = append(out.CertChain, dumpCert(cert))
		}
	}
	for _, cert := range c.Workload.RootCerts {
		out.RootCerts = append(out.RootCerts, dumpCert(cert))
	}
	return out
}

func dumpCert(cert *x509.Certificate) certJSON {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return certJSON{
		PEM: base64.StdEncoding.EncodeToString(text), SerialNumber: cert.SerialNumber.String(),
		ValidFrom: cert.NotBefore.UTC().Format(time.RFC3339), ExpirationTime: cert.NotAfter.UTC().Format(time.RFC3339),
	}
}

func dumpPod(p inpod.Info) podStateJSON {
	out := podStateJSON{State: "Pending", Info: podInfoJSON(p.Pod)}
	if p.Running {
		out.State = "Up"
		out.Connections = &connectionsJSON{Inbound: orEmpty(p.Inbound), Outbound: orEmpty(p.Outbound)}
	}
	return out
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
