package gateway

import (
	"fmt"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
)

// classicTLS judges the TLS settings of a classic server; false when it cannot be served.
func (t *translation) classicTLS(l *listener, s *networkingapi.Server) bool {
	at := l.path.Child("tls")
	if s.GetTls().GetMode() == networkingapi.ServerTLSSettings_AUTO_PASSTHROUGH {
		t.problem(l.origin, at.Child("mode"), "AUTO_PASSTHROUGH is not supported: name the servers with mode PASSTHROUGH and a VirtualService")
		return false
	}
	if l.terminated == nil {
		return true
	}
	certificates, authority := credential.Names(l.terminated)
	for _, name := range append(slices.Clone(certificates), authority) {
		if name == "" {
			continue
		}
		if !strings.HasPrefix(name, "kubernetes://") {
			t.problem(l.origin, at.Child("credentialName"), "%q: only the name of a Secret is supported", name)
			return false
		}
	}
	if l.terminated.GetMode() != networkingapi.ServerTLSSettings_ISTIO_MUTUAL && len(certificates) == 0 && len(CertificateFiles(l.terminated)) == 0 {
		t.problem(l.origin, at, "a certificate is needed: credentialName, or serverCertificate and privateKey")
		return false
	}
	if credential.Mutual(l.terminated) && authority == "" && l.terminated.GetCaCertificates() == "" {
		t.problem(l.origin, at.Child("caCertificates"), "required for mode %s: who signs the certificates of clients", l.terminated.GetMode())
		return false
	}
	for i, suite := range l.terminated.GetCipherSuites() {
		if !slices.Contains(KnownCipherSuites(), suite) {
			t.problem(l.origin, at.Child("cipherSuites").Index(i), "%q is not supported", suite)
		}
	}
	return true
}

// CertificateFiles are the certificates of a server that it names by files.
func CertificateFiles(t *networkingapi.ServerTLSSettings) [][2]string {
	var out [][2]string
	if t.GetServerCertificate() != "" {
		out = append(out, [2]string{t.GetServerCertificate(), t.GetPrivateKey()})
	}
	for _, c := range t.GetTlsCertificates() {
		out = append(out, [2]string{c.GetServerCertificate(), c.GetPrivateKey()})
	}
	return out
}

// KnownCipherSuites are those of TLS 1.2 that both Envoy and our engine know, by the names that Envoy has for them.
func KnownCipherSuites() []string {
	return []string{
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
		"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
		"ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA",
		"AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
	}
}

// terminates reports whether a listener of the Gateway API ends TLS.
func terminates(l *gatewayv1.Listener) bool {
	switch l.Protocol {
	case gatewayv1.HTTPSProtocolType:
		return true
	case gatewayv1.TLSProtocolType:
		return l.TLS == nil || l.TLS.Mode == nil || *l.TLS.Mode != gatewayv1.TLSModePassthrough
	}
	return false
}

// listenerTLS is what a listener of the Gateway API says of TLS: what of it can be used, and what is wrong with the rest.
type listenerTLS struct {
	settings *networkingapi.ServerTLSSettings
	// unusable are references and settings that make the listener one that cannot be served.
	unusable []string
	reason   gatewayv1.ListenerConditionReason
	// clients is why there is nobody to verify clients by, though they are to be verified.
	clients gatewayv1.ListenerConditionReason
}

// newListenerTLS follows the references of a listener that ends TLS, as far as the objects that they name need not be read. Who has the
// listener refers to its certificates: what a Gateway is granted is not granted to its ListenerSets, nor the other way round.
func newListenerTLS(v View, gw *gatewayv1.Gateway, l mergedListener) *listenerTLS {
	out := &listenerTLS{settings: &networkingapi.ServerTLSSettings{Mode: networkingapi.ServerTLSSettings_SIMPLE}}
	if l.Protocol == gatewayv1.HTTPSProtocolType && l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough {
		out.refuse(gatewayv1.ListenerReasonUnsupportedValue, "tls.mode: Passthrough is for listeners of protocol TLS")
		return out
	}
	if l.TLS == nil || len(l.TLS.CertificateRefs) == 0 {
		out.refuse(gatewayv1.ListenerReasonInvalidCertificateRef, "tls.certificateRefs: a certificate is needed")
		return out
	}
	for i, ref := range l.TLS.CertificateRefs {
		group, kind, namespace := "", string(credential.Secret), l.of.namespace
		if ref.Group != nil {
			group = string(*ref.Group)
		}
		if ref.Kind != nil {
			kind = string(*ref.Kind)
		}
		if ref.Namespace != nil && *ref.Namespace != "" {
			namespace = string(*ref.Namespace)
		}
		at := fmt.Sprintf("tls.certificateRefs[%d]: ", i)
		switch {
		case group != "" || kind != string(credential.Secret):
			out.refuse(gatewayv1.ListenerReasonInvalidCertificateRef, at+"a certificate is in a Secret, not in a "+kind)
		case namespace != l.of.namespace && !granted(v, namespace, groupGateway, l.of.kind, l.of.namespace, "", kind, string(ref.Name)):
			out.refuse(gatewayv1.ListenerReasonRefNotPermitted, at+"no ReferenceGrant of namespace "+namespace+" allows this")
		default:
			out.settings.CredentialNames = append(out.settings.CredentialNames, credential.GatewayName(credential.Secret, namespace, string(ref.Name)))
		}
	}
	out.mode(l.Listener)
	out.frontend(v, gw, l.Port)
	return out
}

func (t *listenerTLS) refuse(reason gatewayv1.ListenerConditionReason, message string) {
	if t.reason == "" {
		t.reason = reason
	}
	t.unusable = append(t.unusable, message)
}

// served are the settings that a listener is served with; nil when it is not.
func (t *listenerTLS) served() *networkingapi.ServerTLSSettings {
	if len(t.unusable) > 0 {
		return nil
	}
	return t.settings
}

// optionMode is Istio's option for listeners that ask clients for certificates whose authorities are beside the listener's own.
const optionMode = "gateway.istio.io/tls-terminate-mode"

func (t *listenerTLS) mode(l *gatewayv1.Listener) {
	switch mode := l.TLS.Options[optionMode]; mode {
	case "", "SIMPLE":
	case "MUTUAL":
		t.settings.Mode = networkingapi.ServerTLSSettings_MUTUAL
	case "OPTIONAL_MUTUAL":
		t.settings.Mode = networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL
	case "ISTIO_MUTUAL":
		t.settings.Mode, t.settings.CredentialNames = networkingapi.ServerTLSSettings_ISTIO_MUTUAL, nil
	default:
		t.refuse(gatewayv1.ListenerReasonUnsupportedValue, fmt.Sprintf("tls.options: %s %q is not supported", optionMode, mode))
	}
}

// frontend reads how the Gateway verifies the clients of a port, whose listeners there ever are.
func (t *listenerTLS) frontend(v View, gw *gatewayv1.Gateway, port gatewayv1.PortNumber) {
	if gw.Spec.TLS == nil || gw.Spec.TLS.Frontend == nil {
		return
	}
	validation := gw.Spec.TLS.Frontend.Default.Validation
	for _, p := range gw.Spec.TLS.Frontend.PerPort {
		if p.Port == port {
			validation = p.TLS.Validation
		}
	}
	if validation == nil {
		return
	}
	if validation.Mode != "" && validation.Mode != gatewayv1.AllowValidOnly {
		t.refuse(gatewayv1.ListenerReasonUnsupportedValue, fmt.Sprintf("spec.tls.frontend: mode %s is not supported", validation.Mode))
		return
	}
	if len(validation.CACertificateRefs) != 1 {
		t.refuse(gatewayv1.ListenerReasonUnsupportedValue, "spec.tls.frontend: one object with certificates of authorities is supported, not several")
		return
	}
	ref := validation.CACertificateRefs[0]
	namespace := gw.Namespace
	if ref.Namespace != nil && *ref.Namespace != "" {
		namespace = string(*ref.Namespace)
	}
	kind := credential.Kind(ref.Kind)
	switch {
	case ref.Group != "" || kind != credential.ConfigMap && kind != credential.Secret:
		t.clients = gatewayv1.ListenerReasonInvalidCACertificateKind
		t.refuse(t.clients, "spec.tls.frontend: certificates of authorities are in a ConfigMap or Secret, not in a "+string(kind))
	case namespace != gw.Namespace && !granted(v, namespace, groupGateway, kindGateway, gw.Namespace, "", string(kind), string(ref.Name)):
		t.clients = gatewayv1.ListenerReasonRefNotPermitted
		t.refuse(t.clients, "spec.tls.frontend: no ReferenceGrant of namespace "+namespace+" allows this")
	default:
		t.settings.Mode = networkingapi.ServerTLSSettings_MUTUAL
		t.settings.CaCertCredentialName = credential.GatewayName(kind, namespace, string(ref.Name))
	}
}

// missing are the references of a listener whose objects are not there, or have nothing of what they are named for.
func (t *listenerTLS) missing(v View, gw *gatewayv1.Gateway) (out []string, reason gatewayv1.ListenerConditionReason) {
	certificates, authority := credential.Names(t.settings)
	reason = gatewayv1.ListenerReasonInvalidCertificateRef
	for _, name := range append(slices.Clone(certificates), authority) {
		if name == "" {
			continue
		}
		ref, err := credential.Parse(name, gw.Namespace)
		if err == nil {
			err = v.Credential(ref)
		}
		if err != nil {
			if name == authority {
				reason = gatewayv1.ListenerReasonInvalidCACertificateRef
			}
			out = append(out, err.Error())
		}
	}
	return out, reason
}

// GatewayCredentials are the credentials that the listeners of a Gateway and of its ListenerSets name, and may; none for a class that is
// not ours.
func GatewayCredentials(v View, gw *gatewayv1.Gateway) []credential.Reference {
	if controllerOf(v, gw) == "" {
		return nil
	}
	var out []credential.Reference
	for _, l := range mergedListeners(v, gw) {
		if !terminates(l.Listener) {
			continue
		}
		certificates, authority := credential.Names(newListenerTLS(v, gw, l).settings)
		for _, name := range append(certificates, authority) {
			if ref, err := credential.Parse(name, gw.Namespace); err == nil && !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	return out
}
