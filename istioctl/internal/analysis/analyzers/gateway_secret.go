package analyzers

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pkg/crl"
)

func gatewaySecrets(s *analysis.Snapshot) (out analysis.Messages) {
	if !s.Known("Secret") {
		return nil
	}
	now := time.Now()
	for r, gw := range analysis.All[*networkingv1.Gateway](s) {
		pods := s.Select("", gw.Spec.GetSelector())
		if len(pods) == 0 {
			continue
		}
		for i, server := range gw.Spec.GetServers() {
			settings := server.GetTls()
			name := settings.GetCredentialName()
			if name == "" {
				continue
			}
			field := at("spec.servers", i) + ".tls.credentialName"
			secret, _, ok := analysis.Find[*corev1.Secret](s, pods[0].Namespace, name)
			switch {
			case !ok:
				out.Add(analysis.ReferencedResourceNotFound, r, field, "credentialName", name)
			case !validCredential(secret, now) || credential.Mutual(settings) && !validAuthority(s, secret, settings, now):
				out.Add(analysis.InvalidGatewayCredential, r, field, gw.Name, gw.Namespace)
			}
		}
	}
	for h := range holders(s) {
		for i, l := range h.listeners {
			if l.TLS == nil {
				continue
			}
			for j, ref := range l.TLS.CertificateRefs {
				if ref.Kind != nil && *ref.Kind != "Secret" {
					continue
				}
				namespace := text(ref.Namespace, h.namespace)
				field := at(at("spec.listeners", i)+".tls.certificateRefs", j) + ".name"
				secret, _, ok := analysis.Find[*corev1.Secret](s, namespace, string(ref.Name))
				switch {
				case !ok:
					out.Add(analysis.ReferencedResourceNotFound, h.r, field, "certificate", namespace+"/"+string(ref.Name))
				case !validCredential(secret, now):
					out.Add(analysis.InvalidGatewayCredential, h.r, field, h.name, h.namespace)
				}
			}
		}
	}
	return out
}

// validCredential tells whether a Secret has a certificate that is valid now and the key that belongs to it.
func validCredential(secret *corev1.Secret, now time.Time) bool {
	cert, key := entry(secret, "tls.crt"), entry(secret, "tls.key")
	if len(cert) == 0 && len(key) == 0 {
		cert, key = entry(secret, "cert"), entry(secret, "key")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	return err == nil && now.Before(leaf.NotAfter) && now.After(leaf.NotBefore)
}

// validAuthority tells whether clients' certificates can be checked, by the Secret itself, the one beside it, or the one that is named for
// it: a list of revoked ones that is wrong is refused, and with one that has expired nobody is let in.
func validAuthority(s *analysis.Snapshot, secret *corev1.Secret, settings *networkingapi.ServerTLSSettings, now time.Time) bool {
	name := secret.Name
	if named := settings.GetCaCertCredentialName(); named != "" {
		name = named
	}
	// The one beside it goes before, as in the control plane.
	from, _, ok := analysis.Find[*corev1.Secret](s, secret.Namespace, name+"-cacert")
	if !ok {
		from, _, ok = analysis.Find[*corev1.Secret](s, secret.Namespace, name)
	}
	if !ok {
		return false
	}
	data := map[string][]byte{}
	for _, key := range []string{"cacert", "crl", "ca.crt", "ca.crl"} {
		if text := entry(from, key); len(text) > 0 {
			data[key] = text
		}
	}
	made, err := credential.Authority("", data)
	if err != nil {
		return false
	}
	lists, err := crl.Parse(made.GetValidationContext().GetCrl().GetInlineBytes())
	return err == nil && lists.Expired(now) == ""
}

// entry is one of a Secret's, as served or as written.
func entry(secret *corev1.Secret, name string) []byte {
	if text, ok := secret.StringData[name]; ok {
		return []byte(text)
	}
	return secret.Data[name]
}
