package kube

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	networkingv1beta1 "istio.io/client-go/pkg/apis/networking/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Admit returns what keeps an object from being stored, and what its author should know: all that Validate finds, and what is
// refused at admission only. An object that is in the API nevertheless is used as far as it goes, and its status says how far.
func Admit(o Object) []ObjectError {
	c := &checker{}
	switch o := o.(type) {
	case *networkingv1.VirtualService:
		c.object("VirtualService", o)
		c.virtualService(&o.Spec)
	case *networkingv1.DestinationRule:
		c.object("DestinationRule", o)
		c.destinationRule(&o.Spec)
	case *networkingv1.Gateway:
		c.object("Gateway", o)
		c.gateway(&o.Spec)
	case *networkingv1.Sidecar:
		c.object("Sidecar", o)
		c.sidecar(&o.Spec)
	case *networkingv1.ServiceEntry:
		c.object("ServiceEntry", o)
		c.exportTo(o.Spec.GetExportTo())
		c.protocols("spec.ports", o.Spec.GetPorts())
	case *networkingv1.WorkloadGroup:
		c.object("WorkloadGroup", o)
		c.workloadGroup(&o.Spec)
	case *networkingv1alpha3.EnvoyFilter:
		c.object("EnvoyFilter", o)
		c.envoyFilter(&o.Spec)
	case *networkingv1beta1.ProxyConfig:
		c.object("ProxyConfig", o)
		c.proxyConfig(&o.Spec)
	case *securityv1.RequestAuthentication:
		c.object("RequestAuthentication", o)
		c.requestAuthentication(&o.Spec)
	case *securityv1.PeerAuthentication:
		c.object("PeerAuthentication", o)
		c.mutualModes(&o.Spec)
	case *telemetryv1.Telemetry:
		c.object("Telemetry", o)
		c.telemetry(&o.Spec)
	case *extensionsv1alpha1.WasmPlugin:
		c.object("WasmPlugin", o)
		c.wasmPlugin(&o.Spec)
	}
	for i := range c.errs {
		c.errs[i].Kind, c.errs[i].Namespace, c.errs[i].Name = c.kind, c.namespace, c.name
	}
	return append(Validate(o), c.errs...)
}

// exportTo is a list of namespaces, "." for the object's own, "*" for all and "~" for none.
func (c *checker) exportTo(list []string) {
	for i, to := range list {
		field := fmt.Sprintf("spec.exportTo[%d]", i)
		switch {
		case (to == "*" || to == "~") && len(list) > 1:
			c.bad(field, "%q stands alone: remove the other entries, or this one", to)
		case to == "*", to == "~", to == ".":
		case len(validation.IsDNS1123Label(to)) > 0:
			c.bad(field, "%q is none of a namespace, \".\", \"*\" and \"~\"", to)
		}
	}
}

// destinationHost is the name of a service: short, or whole, perhaps with a wildcard.
func (c *checker) destinationHost(field, host string) {
	switch host {
	case "":
		c.bad(field, "required: name a service, such as reviews or reviews.default.svc.cluster.local")
	case "*":
	default:
		c.host(field, host)
	}
}

// routedHost is a host name or an address that requests are for.
func (c *checker) routedHost(field, host string) {
	if _, err := netip.ParseAddr(host); err == nil || host == "*" {
		return
	}
	if strings.Contains(host, "/") {
		if _, err := netip.ParsePrefix(host); err == nil {
			return
		}
	}
	c.host(field, host)
}

// duration is not negative, and at least a millisecond unless zero is allowed.
func (c *checker) duration(field string, d *durationpb.Duration, zero bool) {
	if d == nil {
		return
	}
	switch v := d.AsDuration(); {
	case d.CheckValid() != nil, v < 0:
		c.bad(field, "%v is not a duration: use one such as 500ms or 10s", v)
	case v < time.Millisecond && !(zero && v == 0):
		c.bad(field, "%v is too short: at least 1ms is needed", v)
	}
}

// percent is from 0 to 100.
func (c *checker) percent(field string, v float64) {
	if !(v >= 0 && v <= 100) {
		c.bad(field, "%v is not a percentage: use 0 to 100", v)
	}
}

// count is not negative.
func (c *checker) count(field string, v int32) {
	if v < 0 {
		c.bad(field, "%d is negative: use 0 or more", v)
	}
}

// regex is an expression that the proxies' engine, RE2, takes.
func (c *checker) regex(field, text string) {
	if text == "" {
		c.bad(field, "an empty expression is not allowed")
		return
	}
	if _, err := regexp.Compile(text); err != nil {
		reason := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		c.bad(field, "%q is not a regular expression in RE2 syntax: %s", text, reason)
	}
}

var headerName = regexp.MustCompile("^:?[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (c *checker) headerName(field, name string) {
	if !headerName.MatchString(name) {
		c.bad(field, "%q is not the name of a header", name)
	}
}

// plainSelector is a map of labels without wildcards.
func (c *checker) plainSelector(field string, labels map[string]string) {
	for _, key := range sortedKeys(labels) {
		switch {
		case key == "":
			c.bad(field, "a label name cannot be empty")
		case strings.Contains(key, "*") || strings.Contains(labels[key], "*"):
			c.bad(field+"."+key, "wildcards are not supported in selectors")
		}
	}
}

func (c *checker) label(field, what, name string) {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		c.bad(field, "%q is not a %s: %s", name, what, problems[0])
	}
}

// oneOf refuses a value that is not known.
func (c *checker) oneOf(field, value string, known ...string) {
	if !slices.Contains(known, value) {
		c.bad(field, "%q is none of %s", value, strings.Join(known, ", "))
	}
}

// protocol is the one of a port; parts after a dash are people's own.
func (c *checker) protocol(field, name string) {
	c.oneOf(field, strings.ToUpper(name), "HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY", "TCP", "TLS", "MONGO", "MYSQL", "REDIS", "UDP", "HBONE", "DOUBLE-HBONE", "AUTO")
}
