package credential

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
)

// Schemes of the names of resources, as Istio has them.
const (
	schemeKubernetes = "kubernetes://"
	schemeGateway    = "kubernetes-gateway://"
	schemeConfigMap  = "configmap://"
	// schemeAuthorities is ours: the authorities of several objects of one namespace, as one.
	schemeAuthorities = "authorities://"
	// authoritySuffix marks the certificates that clients are verified with. It may be a Secret of its own that has that name, or
	// part of the one without the suffix.
	authoritySuffix = "-cacert"
)

// ErrPending says that it has not been looked up yet whether a credential is there.
var ErrPending = errors.New("it is not known yet")

// Kind of the object that a credential is in.
type Kind string

// The kinds.
const (
	Secret    Kind = "Secret"
	ConfigMap Kind = "ConfigMap"
)

// Source is an object that credentials are in.
type Source struct {
	Kind            Kind
	Namespace, Name string
}

// Key is kind/namespace/name.
func (s Source) Key() string { return string(s.Kind) + "/" + s.Namespace + "/" + s.Name }

// named is whether the object has a name and a namespace.
func (s Source) named() bool {
	return s.Name != "" && !strings.ContainsAny(s.Name, "/\x00") && s.Namespace != ""
}

// String is for people.
func (s Source) String() string { return string(s.Kind) + " " + s.Namespace + "/" + s.Name }

// Reference is a credential that a proxy asks for by name.
type Reference struct {
	// Name is the one of the resource.
	Name string
	// Source is where it is; see Sources.
	Source Source
	// Authority is whether the certificates of authorities are wanted, rather than a certificate and its key.
	Authority bool
	// Verified is whether an object of the Gateway API names it, whose references were verified when it was translated: the service
	// account need not be allowed to read it.
	Verified bool
}

// GatewayName is the name of a credential that a Gateway of the Gateway API refers to.
func GatewayName(kind Kind, namespace, name string) string {
	if kind == ConfigMap {
		return schemeConfigMap + namespace + "/" + name
	}
	return schemeGateway + namespace + "/" + name
}

// AuthoritiesName is the name of the authorities in objects of one namespace, of which there is at least one: that of the object, or one
// for all together.
func AuthoritiesName(sources ...Source) string {
	if len(sources) == 1 {
		return AuthorityName(GatewayName(sources[0].Kind, sources[0].Namespace, sources[0].Name))
	}
	parts := make([]string, 0, len(sources))
	for _, s := range sources {
		parts = append(parts, string(s.Kind)+":"+s.Name)
	}
	return AuthorityName(schemeAuthorities + sources[0].Namespace + "/" + strings.Join(parts, ","))
}

// Sources are the objects that a credential is made of: more than one for authorities of several objects.
func (r Reference) Sources() []Source {
	list, several := strings.CutPrefix(strings.TrimSuffix(r.Name, authoritySuffix), schemeAuthorities)
	if !several {
		return []Source{r.Source}
	}
	namespace, list, _ := strings.Cut(list, "/")
	var out []Source
	for part := range strings.SplitSeq(list, ",") {
		kind, name, _ := strings.Cut(part, ":")
		out = append(out, Source{Kind: Kind(kind), Namespace: namespace, Name: name})
	}
	return out
}

// AuthorityName is the name of the authorities beside a credential.
func AuthorityName(name string) string { return name + authoritySuffix }

// resourceName completes the name that a Gateway has.
func resourceName(name string) string {
	if strings.Contains(name, "://") {
		return name
	}
	return schemeKubernetes + name
}

// Names are the resources of a server: its certificates, of which the one that suits a client is presented, and who signs those of
// clients; empty where there is none.
func Names(t *networkingapi.ServerTLSSettings) (certificates []string, authority string) {
	switch t.GetMode() {
	case networkingapi.ServerTLSSettings_SIMPLE, networkingapi.ServerTLSSettings_MUTUAL, networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL:
	default:
		return nil, ""
	}
	for _, name := range append(slices.Clone(t.GetCredentialNames()), t.GetCredentialName()) {
		if name != "" && !slices.Contains(certificates, resourceName(name)) {
			certificates = append(certificates, resourceName(name))
		}
	}
	if !Mutual(t) || len(certificates) == 0 && t.GetCaCertCredentialName() == "" {
		return certificates, ""
	}
	if name := t.GetCaCertCredentialName(); name != "" {
		return certificates, AuthorityName(resourceName(name))
	}
	return certificates, AuthorityName(certificates[0])
}

// Mutual reports whether clients are asked for certificates that somebody else than the mesh has signed.
func Mutual(t *networkingapi.ServerTLSSettings) bool {
	return t.GetMode() == networkingapi.ServerTLSSettings_MUTUAL || t.GetMode() == networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL
}

// Parse reads the name of a resource as proxies of a namespace mean it.
func Parse(name, namespace string) (Reference, error) {
	out := Reference{Name: name, Source: Source{Kind: Secret, Namespace: namespace}}
	rest, authority := strings.CutSuffix(name, authoritySuffix)
	out.Authority = authority
	switch {
	case strings.HasPrefix(rest, schemeKubernetes):
		rest = rest[len(schemeKubernetes):]
		// A namespace may be written. It has to be the proxy's own: see CVE-2021-34824.
		if ns, short, both := strings.Cut(rest, "/"); both {
			if ns != namespace {
				return out, fmt.Errorf("the Secret %s is not in the namespace of the proxy's pods, which is %s", rest, namespace)
			}
			rest = short
		}
		out.Source.Name = rest
	case strings.HasPrefix(rest, schemeAuthorities):
		out.Verified = true
		for i, source := range out.Sources() {
			if !authority || source.Kind != Secret && source.Kind != ConfigMap || !source.named() {
				return out, fmt.Errorf("%q is no name of a credential", name)
			}
			if i == 0 {
				out.Source = source
			}
		}
		return out, nil
	case strings.HasPrefix(rest, schemeGateway), strings.HasPrefix(rest, schemeConfigMap):
		if strings.HasPrefix(rest, schemeConfigMap) {
			out.Source.Kind = ConfigMap
		}
		_, rest, _ = strings.Cut(rest, "://")
		var both bool
		out.Source.Namespace, out.Source.Name, both = strings.Cut(rest, "/")
		if out.Verified = true; !both {
			return out, fmt.Errorf("%q names no namespace", name)
		}
	default:
		return out, fmt.Errorf("%q is no name of a credential", name)
	}
	if !out.Source.named() {
		return out, fmt.Errorf("%q is no name of a credential", name)
	}
	return out, nil
}

// ClientNames are the resources of TLS that a proxy originates: its certificate, and who signs those of servers; empty where there is
// none. They are in the proxy's own namespace, whatever scheme the name has.
func ClientNames(t *networkingapi.ClientTLSSettings) (certificate, authority string) {
	if t.GetCredentialName() == "" {
		return "", ""
	}
	name := schemeKubernetes + strings.TrimPrefix(t.GetCredentialName(), schemeKubernetes)
	switch t.GetMode() {
	case networkingapi.ClientTLSSettings_MUTUAL:
		certificate = name
	case networkingapi.ClientTLSSettings_SIMPLE:
	default:
		return "", ""
	}
	if !t.GetInsecureSkipVerify().GetValue() {
		authority = AuthorityName(name)
	}
	return certificate, authority
}
