package why

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// errUnreadable is a Secret of which nothing is known, because it may not be read.
var errUnreadable = errors.New("it may not be read")

// secretReader returns the content of a Secret or ConfigMap; an error that is not errUnreadable says that it is not there.
type secretReader func(kind credential.Kind, namespace, name string) (map[string][]byte, error)

// fileSecrets reads those of manifests.
func (w *World) fileSecrets(kind credential.Kind, namespace, name string) (map[string][]byte, error) {
	for _, o := range w.Objects {
		if o.GetNamespace() != namespace || o.GetName() != name {
			continue
		}
		switch o := o.(type) {
		case *corev1.Secret:
			if kind == credential.Secret {
				out := map[string][]byte{}
				for k, v := range o.Data {
					out[k] = v
				}
				for k, v := range o.StringData {
					out[k] = []byte(v)
				}
				return out, nil
			}
		case *corev1.ConfigMap:
			if kind == credential.ConfigMap {
				out := map[string][]byte{}
				for k, v := range o.Data {
					out[k] = []byte(v)
				}
				return out, nil
			}
		}
	}
	return nil, errors.New("it is not there")
}

// liveSecrets reads those of a mesh, each when it is asked for: no other is looked at.
func liveSecrets(ctx context.Context, mesh *reach.Mesh) secretReader {
	return func(kind credential.Kind, namespace, name string) (map[string][]byte, error) {
		k := reach.Kind{Version: "v1", Name: "Secret", Plural: "secrets"}
		if kind == credential.ConfigMap {
			k = reach.Kind{Version: "v1", Name: "ConfigMap", Plural: "configmaps"}
		}
		object, err := mesh.Read(ctx, k, namespace, name)
		switch {
		case errors.Is(err, reach.ErrNotFound):
			return nil, errors.New("it is not there")
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		out := map[string][]byte{}
		for _, part := range []string{"data", "stringData"} {
			data, _ := object.Object[part].(map[string]any)
			for key, v := range data {
				text, _ := v.(string)
				out[key] = []byte(text)
				if decoded, err := base64.StdEncoding.DecodeString(text); err == nil && part == "data" && kind == credential.Secret {
					out[key] = decoded
				}
			}
		}
		return out, nil
	}
}

// credentialFault says what is wrong with a credential that a proxy asks for by name; empty when nothing is.
func (s *station) credentialFault(name string) (fault string, of credential.Reference) {
	w := s.w
	if name == l7.OwnCertificate || name == l7.OwnRoots || !strings.Contains(name, "://") {
		return "", of
	}
	of, err := credential.Parse(name, s.proxy.Namespace)
	if err != nil {
		return err.Error(), of
	}
	read := w.m.World.secrets
	if read == nil {
		read = w.m.World.fileSecrets
	}
	data, err := read(of.Source.Kind, of.Source.Namespace, of.Source.Name)
	if errors.Is(err, errUnreadable) {
		w.notes = addOnce(w.notes, fmt.Sprintf("whether %s is as it should be is not known: %v", of.Source, err))
		return "", of
	}
	if err == nil {
		if of.Authority {
			_, err = credential.Authority(name, data)
		} else {
			_, err = credential.Certificate(name, data)
		}
	}
	if err != nil {
		return err.Error(), of
	}
	return "", of
}

// serverCredentials is why a listener cannot end TLS; nil when it can.
func (s *station) serverCredentials(chain *l7.Chain) *Verdict {
	if chain.TLS == nil {
		return nil
	}
	for _, name := range append(slices.Clone(chain.TLS.Certificates), chain.TLS.Validation) {
		if name == "" {
			continue
		}
		fault, of := s.credentialFault(name)
		if fault == "" {
			continue
		}
		v := broken(fmt.Sprintf("make the %s in namespace %s (kubectl create secret tls %s --cert FILE --key FILE -n %[2]s), or correct the name",
			of.Source.Kind, of.Source.Namespace, of.Source.Name), "%s cannot end TLS: %s, which its listener names: %s", s.name, of.Source, fault)
		v = v.about(s.credentialRef(of))
		return &v
	}
	return nil
}

// credentialRef is the field of a Gateway that names a credential.
func (s *station) credentialRef(of credential.Reference) *Ref {
	m := s.w.m
	if gw := object[*gatewayv1.Gateway](m, "Gateway", s.proxy.Namespace, s.proxy.Gateway); gw != nil && s.proxy.Gateway != "" {
		for i, l := range gw.Spec.Listeners {
			if j := namesCertificate(l.TLS, gw.Namespace, of.Source); j >= 0 {
				return m.World.Of(gw, certificateField(i, j))
			}
		}
		for _, set := range m.listenerSets().ListenerSets(gw.Namespace, gw.Name) {
			for i, l := range set.Spec.Listeners {
				if j := namesCertificate(l.TLS, set.Namespace, of.Source); j >= 0 {
					return m.World.Of(set, certificateField(i, j))
				}
			}
		}
	}
	for _, gw := range all[*networkingv1.Gateway](m, kindClassic) {
		if !matchesSelectorSet(gw.Spec.GetSelector(), s.proxy.Labels) {
			continue
		}
		for i, server := range gw.Spec.GetServers() {
			if strings.HasSuffix("/"+server.GetTls().GetCredentialName(), "/"+of.Source.Name) {
				return m.World.Of(gw, fmt.Sprintf("spec.servers[%d].tls.credentialName", i))
			}
		}
	}
	return nil
}

// namesCertificate is which reference of a listener names an object, as an object of the namespace means it; -1 for none.
func namesCertificate(settings *gatewayv1.ListenerTLSConfig, own string, of credential.Source) int {
	if settings == nil {
		return -1
	}
	return slices.IndexFunc(settings.CertificateRefs, func(r gatewayv1.SecretObjectReference) bool {
		namespace := own
		if r.Namespace != nil {
			namespace = string(*r.Namespace)
		}
		return string(r.Name) == of.Name && namespace == of.Namespace
	})
}

func certificateField(listener, ref int) string {
	return fmt.Sprintf("spec.listeners[%d].tls.certificateRefs[%d].name", listener, ref)
}
