package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
)

func (c *checker) gateway(spec *networkingapi.Gateway) {
	if len(spec.GetServers()) == 0 {
		c.bad("spec.servers", "at least one server is required")
	}
	c.plainSelector("spec.selector", spec.GetSelector())
	if len(spec.GetSelector()) == 0 {
		c.warn("spec.selector", "without a selector the Gateway is for every gateway of the mesh")
	}
	names := map[string]bool{}
	for i, s := range spec.GetServers() {
		field := fmt.Sprintf("spec.servers[%d]", i)
		c.server(field, s)
		if name := s.GetPort().GetName(); name != "" {
			if names[name] {
				c.bad(field+".port.name", "%q is used twice", name)
			}
			names[name] = true
		}
	}
}

func (c *checker) server(field string, s *networkingapi.Server) {
	p := s.GetPort()
	if p == nil {
		c.bad(field+".port", "required")
		return
	}
	if p.GetNumber() != 0 || !strings.HasPrefix(s.GetBind(), "unix://") {
		c.port(field+".port.number", p.GetNumber())
	}
	if p.GetName() == "" {
		c.bad(field+".port.name", "a name is required")
	}
	if p.GetProtocol() == "" {
		c.bad(field+".port.protocol", "required: HTTP, HTTPS, GRPC, HTTP2, TCP or TLS")
	} else {
		c.protocol(field+".port.protocol", p.GetProtocol())
	}
	if len(s.GetHosts()) == 0 {
		c.bad(field+".hosts", "at least one host is required: use \"*\" for all")
	}
	for i, host := range s.GetHosts() {
		c.serverHost(fmt.Sprintf("%s.hosts[%d]", field, i), host)
	}
	if bind := s.GetBind(); bind != "" && !strings.HasPrefix(bind, "unix://") {
		if _, err := netip.ParseAddr(bind); err != nil {
			c.bad(field+".bind", "%q is not an IP address", bind)
		}
	}
	c.serverTLS(field+".tls", s.GetTls(), strings.ToUpper(p.GetProtocol()))
}

// serverHost is [namespace/]host.
func (c *checker) serverHost(field, host string) {
	namespace, name, both := strings.Cut(host, "/")
	if !both {
		name = host
	} else if namespace != "*" && namespace != "." {
		c.label(field, "namespace", namespace)
	}
	if name == "" || name != "*" {
		c.routedHost(field, name)
	}
}

func (c *checker) serverTLS(field string, t *networkingapi.ServerTLSSettings, protocol string) {
	secure := protocol == "HTTPS" || protocol == "TLS"
	if t == nil {
		if secure {
			c.bad(field, "required for protocol %s", protocol)
		}
		return
	}
	if t.GetHttpsRedirect() && secure {
		c.bad(field+".httpsRedirect", "is for servers of protocol HTTP")
	}
	if !secure && (t.GetCredentialName() != "" || t.GetServerCertificate() != "" || t.GetMode() != networkingapi.ServerTLSSettings_PASSTHROUGH) {
		c.bad(field, "protocol %s has no TLS but httpsRedirect: use protocol HTTPS or TLS", protocol)
		return
	}
	if !secure {
		return
	}
	c.serverCertificates(field, t)
	if low, high := t.GetMinProtocolVersion(), t.GetMaxProtocolVersion(); high != networkingapi.ServerTLSSettings_TLS_AUTO && low > high {
		c.bad(field+".minProtocolVersion", "%s is above maxProtocolVersion %s", low, high)
	}
	for i, suite := range t.GetCipherSuites() {
		if slices.Contains(t.GetCipherSuites()[:i], suite) {
			c.warn(fmt.Sprintf("%s.cipherSuites[%d]", field, i), "%q is there twice", suite)
		}
		c.notEmpty(fmt.Sprintf("%s.cipherSuites[%d]", field, i), suite)
	}
}

func (c *checker) serverCertificates(field string, t *networkingapi.ServerTLSSettings) {
	files := t.GetServerCertificate() != "" || t.GetPrivateKey() != ""
	secrets := t.GetCredentialName() != "" || len(t.GetCredentialNames()) > 0
	lists := len(t.GetTlsCertificates()) > 0
	if t.GetCredentialName() != "" && len(t.GetCredentialNames()) > 0 {
		c.bad(field+".credentialNames", "only one of credentialName and credentialNames can be set")
	}
	switch t.GetMode() {
	case networkingapi.ServerTLSSettings_PASSTHROUGH, networkingapi.ServerTLSSettings_AUTO_PASSTHROUGH:
		if files || secrets || t.GetCaCertificates() != "" {
			c.bad(field+".mode", "%s does not end TLS here: remove the certificates", t.GetMode())
		}
	case networkingapi.ServerTLSSettings_ISTIO_MUTUAL:
		if files || secrets || t.GetCaCertificates() != "" {
			c.bad(field+".mode", "ISTIO_MUTUAL uses the mesh's certificates: remove the others, or use mode MUTUAL")
		}
	case networkingapi.ServerTLSSettings_SIMPLE, networkingapi.ServerTLSSettings_MUTUAL, networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL:
		switch {
		case secrets || lists:
		case t.GetServerCertificate() == "":
			c.bad(field+".credentialName", "a certificate is required for mode %s: name a Secret, or serverCertificate and privateKey", t.GetMode())
		case t.GetPrivateKey() == "":
			c.bad(field+".privateKey", "required beside serverCertificate")
		case t.GetMode() != networkingapi.ServerTLSSettings_SIMPLE && t.GetCaCertificates() == "":
			c.bad(field+".caCertificates", "required for mode %s: who signs the clients' certificates", t.GetMode())
		}
	default:
		c.bad(field+".mode", "%d is not a mode", t.GetMode())
	}
	switch mode := t.GetMode(); mode {
	case networkingapi.ServerTLSSettings_MUTUAL, networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL, networkingapi.ServerTLSSettings_ISTIO_MUTUAL:
	default:
		if t.GetCaCrl() != "" {
			c.warn(field+".caCrl", "has no effect: clients are not asked for certificates in mode %s", mode)
		}
	}
}

func (c *checker) sidecar(spec *networkingapi.Sidecar) {
	c.plainSelector("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	if len(spec.GetEgress())+len(spec.GetIngress()) == 0 && spec.GetOutboundTrafficPolicy() == nil && spec.GetInboundConnectionPool() == nil {
		c.bad("spec", "says nothing: add egress, ingress or outboundTrafficPolicy")
	}
	for i, e := range spec.GetEgress() {
		field := fmt.Sprintf("spec.egress[%d]", i)
		if len(e.GetHosts()) == 0 {
			c.bad(field+".hosts", "at least one host is required, such as \"./*\"")
		}
		for j, host := range e.GetHosts() {
			c.egressHost(fmt.Sprintf("%s.hosts[%d]", field, j), host)
		}
		if e.GetPort() != nil {
			c.sidecarPort(field+".port", e.GetPort())
		}
	}
	for i, in := range spec.GetIngress() {
		field := fmt.Sprintf("spec.ingress[%d]", i)
		if in.GetPort() == nil {
			c.bad(field+".port", "required")
		} else {
			c.sidecarPort(field+".port", in.GetPort())
		}
		c.defaultEndpoint(field+".defaultEndpoint", in.GetDefaultEndpoint())
	}
}

func (c *checker) sidecarPort(field string, p *networkingapi.SidecarPort) {
	c.port(field+".number", p.GetNumber())
	if p.GetProtocol() != "" {
		c.protocol(field+".protocol", p.GetProtocol())
	}
}

// egressHost is namespace/host.
func (c *checker) egressHost(field, host string) {
	namespace, name, both := strings.Cut(host, "/")
	if !both {
		c.bad(field, "%q is not namespace/host, such as ./* or istio-system/*", host)
		return
	}
	if !slices.Contains([]string{"*", ".", "~"}, namespace) {
		c.label(field, "namespace", namespace)
	}
	if name != "*" {
		c.routedHost(field, name)
	}
}

// defaultEndpoint is where a sidecar hands requests on: a port of the pod, or a socket.
func (c *checker) defaultEndpoint(field, text string) {
	if text == "" || strings.HasPrefix(text, "unix://") {
		return
	}
	at := strings.LastIndexByte(text, ':')
	if at < 0 {
		c.bad(field, "%q has no port: use 127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path", text)
		return
	}
	c.oneOf(field, strings.Trim(text[:at], "[]"), "127.0.0.1", "0.0.0.0", "::1", "::")
	if n, err := strconv.ParseUint(text[at+1:], 10, 16); err != nil || n == 0 {
		c.bad(field, "%q is not a port: use 1 to 65535", text[at+1:])
	}
}
