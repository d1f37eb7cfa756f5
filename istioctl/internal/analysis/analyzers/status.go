package analyzers

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	metaapi "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

func statusAnalyzers() []analysis.Analyzer {
	return []analysis.Analyzer{
		{
			Name: "conditions.ConditionAnalyzer", Description: "Checks for negative status conditions on resources",
			Codes: []analysis.Code{analysis.NegativeCondition},
			Run:   conditions,
		},
		{
			Name: "deprecation.FieldAnalyzer", Description: "Checks for deprecated Istio types and fields",
			Codes: []analysis.Code{analysis.Deprecated},
			Run:   deprecated,
		},
	}
}

func conditions(s *analysis.Snapshot) (out analysis.Messages) {
	for r := range s.Everything() {
		for _, c := range conditionsOf(r) {
			// These are good when they are false.
			if c.Type == "PartiallyInvalid" || c.Type == "Conflicted" || c.Type == "OverlappingTLSConfig" {
				continue
			}
			if c.Status == metav1.ConditionFalse {
				out.Add(analysis.NegativeCondition, r, "status.conditions", c.Type, c.Reason, strings.TrimSuffix(c.Message, "."))
			}
		}
	}
	return out
}

func conditionsOf(r *analysis.Resource) []metav1.Condition {
	switch o := r.Object.(type) {
	case *corev1.Service:
		return o.Status.Conditions
	case *gatewayv1.Gateway:
		return o.Status.Conditions
	case *gatewayv1.ListenerSet:
		return o.Status.Conditions
	case *gatewayv1.GatewayClass:
		return o.Status.Conditions
	case *gatewayv1.HTTPRoute:
		return ofParents(o.Status.Parents)
	case *gatewayv1.GRPCRoute:
		return ofParents(o.Status.Parents)
	case *gatewayv1.TCPRoute:
		return ofParents(o.Status.Parents)
	case *gatewayv1.TLSRoute:
		return ofParents(o.Status.Parents)
	case *gatewayv1.BackendTLSPolicy:
		return ofAncestors(o.Status.Ancestors)
	case *policyapi.RateLimitPolicy:
		return o.Status.Conditions
	case *networkingv1.ServiceEntry:
		return ofIstio(o.Status.GetConditions())
	case *networkingv1.VirtualService:
		return ofIstio(o.Status.GetConditions())
	case *networkingv1.DestinationRule:
		return ofIstio(o.Status.GetConditions())
	case *networkingv1.Gateway:
		return ofIstio(o.Status.GetConditions())
	case *networkingv1.WorkloadEntry:
		return ofIstio(o.Status.GetConditions())
	case *securityv1.AuthorizationPolicy:
		return ofIstio(o.Status.GetConditions())
	case *securityv1.RequestAuthentication:
		return ofIstio(o.Status.GetConditions())
	case *securityv1.PeerAuthentication:
		return ofIstio(o.Status.GetConditions())
	case *telemetryv1.Telemetry:
		return ofIstio(o.Status.GetConditions())
	}
	return nil
}

func ofParents(parents []gatewayv1.RouteParentStatus) []metav1.Condition {
	var out []metav1.Condition
	for _, p := range parents {
		out = append(out, p.Conditions...)
	}
	return out
}

func ofAncestors(ancestors []gatewayv1.PolicyAncestorStatus) []metav1.Condition {
	var out []metav1.Condition
	for _, a := range ancestors {
		out = append(out, a.Conditions...)
	}
	return out
}

func ofIstio(in []*metaapi.IstioCondition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range in {
		out = append(out, metav1.Condition{Type: c.GetType(), Status: metav1.ConditionStatus(c.GetStatus()), Reason: c.GetReason(), Message: c.GetMessage()})
	}
	return out
}

// deprecated reports the fields that the API itself calls so.
func deprecated(s *analysis.Snapshot) (out analysis.Messages) {
	for r := range s.Everything() {
		if m := specOf(r); m != nil {
			deprecatedIn(&out, r, m.ProtoReflect(), "spec")
		}
	}
	return out
}

func specOf(r *analysis.Resource) proto.Message {
	switch o := r.Object.(type) {
	case *networkingv1.VirtualService:
		return &o.Spec
	case *networkingv1.DestinationRule:
		return &o.Spec
	case *networkingv1.Gateway:
		return &o.Spec
	case *networkingv1.ServiceEntry:
		return &o.Spec
	case *networkingv1.WorkloadEntry:
		return &o.Spec
	case *networkingv1.Sidecar:
		return &o.Spec
	case *securityv1.AuthorizationPolicy:
		return &o.Spec
	case *securityv1.RequestAuthentication:
		return &o.Spec
	case *securityv1.PeerAuthentication:
		return &o.Spec
	case *telemetryv1.Telemetry:
		return &o.Spec
	}
	return nil
}

func deprecatedIn(out *analysis.Messages, r *analysis.Resource, m protoreflect.Message, path string) {
	var fields []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, f)
		return true
	})
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number()) - int(b.Number()) })
	for _, f := range fields {
		at := path + "." + f.JSONName()
		if options, ok := f.Options().(*descriptorpb.FieldOptions); ok && options.GetDeprecated() {
			out.Add(analysis.Deprecated, r, at, fmt.Sprintf("field %s of %s will be removed from the API", at, r.Kind))
		}
		if f.Kind() != protoreflect.MessageKind || f.IsMap() {
			continue
		}
		if f.IsList() {
			list := m.Get(f).List()
			for i := range list.Len() {
				deprecatedIn(out, r, list.Get(i).Message(), fmt.Sprintf("%s[%d]", at, i))
			}
			continue
		}
		deprecatedIn(out, r, m.Get(f).Message(), at)
	}
}
