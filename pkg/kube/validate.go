package kube

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// Validate returns what is wrong with an object of a kind the mesh reads; kinds it does not know are always right. Errors
// with Warning set do not keep the object from being used. File and Line are left empty.
func Validate(o Object) []ObjectError {
	c := &checker{}
	c.labels("metadata.labels", o.GetLabels())
	switch o := o.(type) {
	case *securityv1.AuthorizationPolicy:
		c.object("AuthorizationPolicy", o)
		c.authorizationPolicy(o)
	case *securityv1.PeerAuthentication:
		c.object("PeerAuthentication", o)
		c.peerAuthentication(o)
	case *networkingv1.ServiceEntry:
		c.object("ServiceEntry", o)
		c.serviceEntry(o)
	case *networkingv1.WorkloadEntry:
		c.object("WorkloadEntry", o)
		c.workloadEntry(&o.Spec, "spec")
	case *policyapi.RateLimitPolicy:
		c.object(policyapi.KindRateLimitPolicy, o)
		c.rateLimitPolicy(o)
	case *corev1.Service:
		c.object("Service", o)
		c.service(o)
	case *corev1.Pod:
		c.object("Pod", o)
		c.pod(o)
	default:
		c.object(o.GetObjectKind().GroupVersionKind().Kind, o)
	}
	for i := range c.errs {
		c.errs[i].Kind, c.errs[i].Namespace, c.errs[i].Name = c.kind, c.namespace, c.name
	}
	return c.errs
}

// checker collects the errors of one object.
type checker struct {
	kind, namespace, name string
	errs                  []ObjectError
}

func (c *checker) object(kind string, o Object) {
	c.kind, c.namespace, c.name = kind, o.GetNamespace(), o.GetName()
}

func (c *checker) bad(field, format string, args ...any) {
	c.errs = append(c.errs, ObjectError{Field: field, Reason: fmt.Sprintf(format, args...)})
}

func (c *checker) warn(field, format string, args ...any) {
	c.errs = append(c.errs, ObjectError{Field: field, Reason: fmt.Sprintf(format, args...), Warning: true})
}

func (c *checker) labels(field string, labels map[string]string) {
	for _, key := range sortedKeys(labels) {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			c.bad(field, "%q is not a label name: %s", key, problems[0])
		}
		if problems := validation.IsValidLabelValue(labels[key]); len(problems) > 0 {
			c.bad(field+"."+key, "%q is not a label value: %s", labels[key], problems[0])
		}
	}
}

// port checks a port number.
func (c *checker) port(field string, n uint32) {
	if n < 1 || n > 65535 {
		c.bad(field, "%d is not a port: use 1 to 65535", n)
	}
}

// block checks an address or a CIDR block.
func (c *checker) block(field, text string) {
	var err error
	if strings.Contains(text, "/") {
		_, err = netip.ParsePrefix(text)
	} else {
		_, err = netip.ParseAddr(text)
	}
	if err != nil {
		c.bad(field, "%q is neither an IP address nor a CIDR block such as 10.0.0.0/8", text)
	}
}

// host checks a DNS name whose first label may be "*".
func (c *checker) host(field, host string) {
	name := strings.TrimPrefix(host, "*.")
	switch host {
	case "*":
		c.bad(field, "\"*\" alone is not allowed: name a domain, such as *.example.com")
	case "":
		c.bad(field, "a host name cannot be empty")
	default:
		if problems := validation.IsDNS1123Subdomain(strings.ToLower(name)); len(problems) > 0 {
			c.bad(field, "%q is not a host name: %s", host, problems[0])
		}
	}
}

func (c *checker) service(o *corev1.Service) {
	seen := map[string]bool{}
	for i, p := range o.Spec.Ports {
		field := fmt.Sprintf("spec.ports[%d]", i)
		c.port(field+".port", uint32(max(p.Port, 0)))
		if p.Name == "" && len(o.Spec.Ports) > 1 {
			c.bad(field+".name", "a name is required when there are several ports")
		}
		if p.Name != "" && seen[p.Name] {
			c.bad(field+".name", "%q is used twice", p.Name)
		}
		seen[p.Name] = true
	}
	for i, ip := range o.Spec.ClusterIPs {
		if _, err := netip.ParseAddr(ip); err != nil && ip != corev1.ClusterIPNone && ip != "" {
			c.bad(fmt.Sprintf("spec.clusterIPs[%d]", i), "%q is not an IP address", ip)
		}
	}
	if ip := o.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		if _, err := netip.ParseAddr(ip); err != nil {
			c.bad("spec.clusterIP", "%q is not an IP address", ip)
		}
	}
	if o.Spec.Type == corev1.ServiceTypeExternalName && o.Spec.ExternalName == "" {
		c.bad("spec.externalName", "required for type ExternalName")
	}
}

func (c *checker) pod(o *corev1.Pod) {
	for i, ip := range o.Status.PodIPs {
		if _, err := netip.ParseAddr(ip.IP); err != nil {
			c.bad(fmt.Sprintf("status.podIPs[%d].ip", i), "%q is not an IP address", ip.IP)
		}
	}
	if ip := o.Status.PodIP; ip != "" {
		if _, err := netip.ParseAddr(ip); err != nil {
			c.bad("status.podIP", "%q is not an IP address", ip)
		}
	}
	if len(o.Spec.Containers) == 0 {
		c.warn("spec.containers", "a pod has at least one container")
	}
}
