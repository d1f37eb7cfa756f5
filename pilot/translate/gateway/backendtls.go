package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// KindBackendTLSPolicy is how the Gateway API calls it.
const KindBackendTLSPolicy = "BackendTLSPolicy"

// BackendTLS is the TLS that proxies speak to a port of a service, because a BackendTLSPolicy says so.
type BackendTLS struct {
	// Policy is the object that says it.
	Policy route.Origin
	// ServerName is the one that is sent to the backend.
	ServerName string
	// Names are those of which the backend's certificate has to have one.
	Names []SubjectName
	// Authority is the credential with the authorities that are trusted; empty are those of the proxy's own system.
	Authority string
	// Refused is why nobody can be trusted, and no connection is to be made; empty when there is somebody.
	Refused string
}

// SubjectName is a name that a certificate may have: a host name, whose first label may be a wildcard, or a URI.
type SubjectName struct {
	Name string
	URI  bool
}

// BackendTLSTargets are the keys of what a policy names as its targets, as TargetKey makes them: what to index by.
func BackendTLSTargets(p *gatewayv1.BackendTLSPolicy) []string {
	var out []string
	for _, ref := range p.Spec.TargetRefs {
		if key := referenceKey(string(ref.Group), string(ref.Kind), p.Namespace, string(ref.Name)); key != "" && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

// TargetKey is the key of a service as a target.
func (s *Service) TargetKey() string {
	if s.Entry {
		return referenceKey(groupNetworking, kindServiceEntry, s.Namespace, s.Name)
	}
	return referenceKey("", kindService, s.Namespace, s.Name)
}

const (
	kindService      = "Service"
	kindServiceEntry = "ServiceEntry"
)

// referenceKey is empty for kinds that are no services.
func referenceKey(group, kind, namespace, name string) string {
	if group == "" && kind == kindService || group == groupNetworking && kind == kindServiceEntry {
		return kind + "/" + namespace + "/" + name
	}
	return ""
}

// BackendTLSFor is the TLS to a port of a service; nil when none of the policies, which are all that name the service, is about it. One
// that names the port comes before one that names none; among those the oldest counts.
func BackendTLSFor(v View, policies []*gatewayv1.BackendTLSPolicy, svc *Service, port Port) *BackendTLS {
	var whole *gatewayv1.BackendTLSPolicy
	for _, p := range oldestPolicies(policies) {
		for _, ref := range p.Spec.TargetRefs {
			if referenceKey(string(ref.Group), string(ref.Kind), p.Namespace, string(ref.Name)) != svc.TargetKey() {
				continue
			}
			switch section := sectionOf(ref); {
			case section != "" && section == port.Name:
				return judgeBackendTLS(v, p).backend()
			case section == "" && whole == nil:
				whole = p
			}
		}
	}
	if whole == nil {
		return nil
	}
	return judgeBackendTLS(v, whole).backend()
}

func oldestPolicies(policies []*gatewayv1.BackendTLSPolicy) []*gatewayv1.BackendTLSPolicy {
	out := slices.Clone(policies)
	slices.SortFunc(out, func(a, b *gatewayv1.BackendTLSPolicy) int { return older(&a.ObjectMeta, &b.ObjectMeta) })
	return out
}

func sectionOf(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) string {
	if ref.SectionName == nil {
		return ""
	}
	return string(*ref.SectionName)
}

// backendTLSVerdict is what became of the part of a policy that is about certificates.
type backendTLSVerdict struct {
	tls BackendTLS
	// invalid are values that cannot be honoured, unresolved the references that lead nowhere, of which reason is the first one's.
	invalid, unresolved []string
	reason              gatewayv1.PolicyConditionReason
	// trusted is whether anybody is; pending whether that is not known yet.
	trusted, pending bool
	// unused are options that have no effect.
	unused []string
}

// backend is what proxies do. What is not known yet is not refused: the credential comes, or it is known to be missing.
func (d backendTLSVerdict) backend() *BackendTLS {
	switch {
	case len(d.invalid) > 0:
		d.tls.Refused = strings.Join(d.invalid, "; ")
	case !d.trusted:
		d.tls.Refused = strings.Join(d.unresolved, "; ")
	}
	return &d.tls
}

func judgeBackendTLS(v View, p *gatewayv1.BackendTLSPolicy) backendTLSVerdict {
	out := backendTLSVerdict{reason: gatewayv1.BackendTLSPolicyReasonResolvedRefs}
	out.tls.Policy = route.Origin{Group: groupGateway, Version: "v1", Kind: KindBackendTLSPolicy, Namespace: p.Namespace, Name: p.Name}
	for _, key := range slices.Sorted(maps.Keys(p.Spec.Options)) {
		out.unused = append(out.unused, string(key))
	}
	at := field.NewPath("spec", "validation")
	out.names(at, p.Spec.Validation)
	refs, known := p.Spec.Validation.CACertificateRefs, ""
	if p.Spec.Validation.WellKnownCACertificates != nil {
		known = string(*p.Spec.Validation.WellKnownCACertificates)
	}
	switch {
	case len(refs) > 0 && known != "":
		out.refuse(at, "caCertificateRefs and wellKnownCACertificates exclude one another")
	case len(refs) > 0:
		out.authorities(v, p.Namespace, at.Child("caCertificateRefs"), refs)
	case known == string(gatewayv1.WellKnownCACertificatesSystem):
		out.trusted = true
	case known != "":
		out.refuse(at.Child("wellKnownCACertificates"), fmt.Sprintf("%q is not supported, only System is", known))
	default:
		out.refuse(at, "neither caCertificateRefs nor wellKnownCACertificates says who is trusted")
	}
	return out
}

func (d *backendTLSVerdict) refuse(at *field.Path, why string) {
	d.invalid = append(d.invalid, at.String()+": "+why)
}

// names reads what a certificate has to be for. The host name is no such name where others are given.
func (d *backendTLSVerdict) names(at *field.Path, in gatewayv1.BackendTLSPolicyValidation) {
	d.tls.ServerName = string(in.Hostname)
	if !validHost(d.tls.ServerName) || strings.ContainsAny(d.tls.ServerName, "*:") {
		d.refuse(at.Child("hostname"), fmt.Sprintf("%q is no host name", in.Hostname))
	}
	if len(in.SubjectAltNames) == 0 {
		d.tls.Names = []SubjectName{{Name: d.tls.ServerName}}
	}
	for i, san := range in.SubjectAltNames {
		at := at.Child("subjectAltNames").Index(i)
		switch san.Type {
		case gatewayv1.HostnameSubjectAltNameType:
			if host := string(san.Hostname); host == "*" || !validHost(host) || strings.Contains(host, ":") {
				d.refuse(at.Child("hostname"), fmt.Sprintf("%q is no host name", host))
			}
			d.tls.Names = append(d.tls.Names, SubjectName{Name: string(san.Hostname)})
		case gatewayv1.URISubjectAltNameType:
			if u, err := url.Parse(string(san.URI)); err != nil || u.Scheme == "" {
				d.refuse(at.Child("uri"), fmt.Sprintf("%q is no absolute URI", san.URI))
			}
			d.tls.Names = append(d.tls.Names, SubjectName{Name: string(san.URI), URI: true})
		default:
			d.refuse(at.Child("type"), fmt.Sprintf("%q is not supported", san.Type))
		}
	}
}

// authorities looks for who is trusted. Of several references those count that lead somewhere.
func (d *backendTLSVerdict) authorities(v View, namespace string, at *field.Path, refs []gatewayv1.LocalObjectReference) {
	var usable []credential.Source
	for i, ref := range refs {
		source, ok := authoritySource(namespace, ref)
		reason, why := gatewayv1.BackendTLSPolicyReasonInvalidKind, "certificates of authorities are in a ConfigMap or Secret, not in a "+string(ref.Kind)+" of the group "+fmt.Sprintf("%q", ref.Group)
		if ok {
			reason = gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef
			err := authorityProblem(v, source)
			if errors.Is(err, credential.ErrPending) {
				d.pending, err = true, nil
			}
			if err == nil {
				if !slices.Contains(usable, source) {
					usable = append(usable, source)
				}
				continue
			}
			why = err.Error()
		}
		if len(d.unresolved) == 0 {
			d.reason = reason
		}
		d.unresolved = append(d.unresolved, at.Index(i).String()+": "+why)
	}
	if d.trusted = len(usable) > 0; d.trusted {
		d.tls.Authority = credential.AuthoritiesName(usable...)
	}
}

func authoritySource(namespace string, ref gatewayv1.LocalObjectReference) (credential.Source, bool) {
	source := credential.Source{Kind: credential.Kind(ref.Kind), Namespace: namespace, Name: string(ref.Name)}
	return source, ref.Group == "" && (source.Kind == credential.ConfigMap || source.Kind == credential.Secret)
}

func authorityProblem(v View, source credential.Source) error {
	ref, err := credential.Parse(credential.AuthoritiesName(source), source.Namespace)
	if err != nil {
		return err
	}
	return v.Credential(ref)
}

// BackendTLSCredentials are what a policy names, whether it is there or not.
func BackendTLSCredentials(p *gatewayv1.BackendTLSPolicy) []credential.Reference {
	var out []credential.Reference
	for _, ref := range p.Spec.Validation.CACertificateRefs {
		if source, ok := authoritySource(p.Namespace, ref); ok {
			if ref, err := credential.Parse(credential.AuthoritiesName(source), p.Namespace); err == nil && !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	return out
}
