package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
	typeapi "istio.io/api/type/v1beta1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"github.com/isthmus-mesh/isthmus/pkg/expr"
)

var _ spec = (*telemetryapi.Telemetry)(nil)

// Telemetry is what one filter chain tells of what it carries.
type Telemetry struct {
	AccessLogs []*accesslogv3.AccessLog
	// Tracing is nil where nothing is traced; RequestID then is, too, where ids are as by default.
	Tracing   *hcmv3.HttpConnectionManager_Tracing
	RequestID *hcmv3.RequestIDExtension
	// Metrics are what is said of metrics, for the chain's metadata; nil is nothing.
	Metrics *structpb.Struct
}

// TelemetryInput is what the telemetry of a filter chain is made from.
type TelemetryInput struct {
	Mesh   *meshapi.MeshConfig
	Target Target
	// Objects are those that may apply, in any order.
	Objects []*telemetryv1.Telemetry
	// Find finds the service of a provider.
	Find FindService
}

// NewTelemetry makes the telemetry of a filter chain. What cannot be done is left out: TelemetryProblems tells of it.
func NewTelemetry(in TelemetryInput) Telemetry {
	levels := in.levels()
	t := in.providers()
	logs, _ := t.logs(levels)
	out := Telemetry{AccessLogs: logs, Metrics: t.metrics(levels)}
	out.Tracing, out.RequestID, _ = t.tracing(levels)
	return out
}

// telemetry is the state of a translation.
type telemetry struct {
	mesh   *meshapi.MeshConfig
	find   FindService
	server bool // the chain is a server's, as at a waypoint; that of a gateway is a client's
}

func (in TelemetryInput) providers() *telemetry {
	return &telemetry{mesh: in.Mesh, find: in.Find, server: in.Target.Proxy == Waypoint}
}

// levels are the objects that apply, the most general one first: at most one of the root namespace, of the proxy's namespace, and of
// the proxy or service itself. Of several at one level the oldest one counts.
func (in TelemetryInput) levels() []*telemetryapi.Telemetry {
	sorted := slices.Clone(in.Objects)
	slices.SortFunc(sorted, func(a, b *telemetryv1.Telemetry) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var out []*telemetryapi.Telemetry
	first := func(applies func(*telemetryv1.Telemetry) bool) {
		if i := slices.IndexFunc(sorted, applies); i >= 0 {
			out = append(out, &sorted[i].Spec)
		}
	}
	t := in.Target
	first(func(o *telemetryv1.Telemetry) bool { return o.Namespace == t.RootNamespace && general(&o.Spec) })
	if t.Namespace != t.RootNamespace {
		first(func(o *telemetryv1.Telemetry) bool { return o.Namespace == t.Namespace && general(&o.Spec) })
	}
	class := func(o *telemetryv1.Telemetry) bool {
		return slices.ContainsFunc(targets(&o.Spec), func(ref *typeapi.PolicyTargetReference) bool { return refKind(ref) == KindGatewayClass })
	}
	first(func(o *telemetryv1.Telemetry) bool { return class(o) && t.attaches(&o.ObjectMeta, &o.Spec) })
	service := func(o *telemetryv1.Telemetry) bool {
		return slices.ContainsFunc(targets(&o.Spec), func(ref *typeapi.PolicyTargetReference) bool {
			return refKind(ref) == KindService || refKind(ref) == KindServiceEntry
		})
	}
	first(func(o *telemetryv1.Telemetry) bool {
		return !general(&o.Spec) && !class(o) && !service(o) && t.attaches(&o.ObjectMeta, &o.Spec)
	})
	first(func(o *telemetryv1.Telemetry) bool { return service(o) && t.attaches(&o.ObjectMeta, &o.Spec) })
	return out
}

// general is whether an object is for a whole namespace.
func general(s spec) bool { return len(s.GetSelector().GetMatchLabels()) == 0 && len(targets(s)) == 0 }

// provider finds one by its name.
func (t *telemetry) provider(name string) *meshapi.MeshConfig_ExtensionProvider {
	for _, p := range t.mesh.GetExtensionProviders() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

// matches is whether what an object says is for this side of the traffic.
func (t *telemetry) matches(mode telemetryapi.WorkloadMode) bool {
	switch mode {
	case telemetryapi.WorkloadMode_CLIENT:
		return !t.server
	case telemetryapi.WorkloadMode_SERVER:
		return t.server
	case telemetryapi.WorkloadMode_CLIENT_AND_SERVER:
	}
	return true
}

func providerNames(refs []*telemetryapi.ProviderRef) (out []string) {
	for _, r := range refs {
		out = append(out, r.GetName())
	}
	return out
}

// TelemetryProblems says what of an object has no effect, each with the field.
func TelemetryProblems(mesh *meshapi.MeshConfig, o *telemetryv1.Telemetry, find FindService) []string {
	t := &telemetry{mesh: mesh, find: find}
	var out []string
	note := func(field string, problems ...string) {
		for _, p := range problems {
			out = append(out, field+": "+p)
		}
	}
	for i, l := range o.Spec.GetAccessLogging() {
		field := fmt.Sprintf("spec.accessLogging[%d]", i)
		for j, name := range providerNames(l.GetProviders()) {
			_, problems := t.log(name)
			note(fmt.Sprintf("%s.providers[%d]", field, j), problems...)
		}
		if text := l.GetFilter().GetExpression(); text != "" {
			if _, err := expr.Compile(text); err != nil {
				note(field+".filter.expression", fmt.Sprintf("%v: nothing is logged", err))
			}
		}
	}
	for i, tr := range o.Spec.GetTracing() {
		field := fmt.Sprintf("spec.tracing[%d]", i)
		for j, name := range providerNames(tr.GetProviders()) {
			if _, problem := t.tracer(name); problem != "" {
				note(fmt.Sprintf("%s.providers[%d]", field, j), problem)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(tr.GetCustomTags())) {
			if f := tr.GetCustomTags()[name].GetFormatter(); f != nil {
				note(field+".customTags."+name+".formatter.value", FormatProblems(f.GetValue())...)
			}
		}
	}
	for i, m := range o.Spec.GetMetrics() {
		field := fmt.Sprintf("spec.metrics[%d]", i)
		for j, name := range providerNames(m.GetProviders()) {
			if p := t.provider(name); name != prometheusProvider && p.GetPrometheus() == nil {
				note(fmt.Sprintf("%s.providers[%d]", field, j), fmt.Sprintf("%q is not a prometheus provider: metrics are served to Prometheus only", name))
			}
		}
		for j, override := range m.GetOverrides() {
			if name := override.GetMatch().GetCustomMetric(); name != "" {
				note(fmt.Sprintf("%s.overrides[%d].match.customMetric", field, j), fmt.Sprintf("there is no metric %q: use match.metric", name))
			}
			for _, tag := range slices.Sorted(maps.Keys(override.GetTagOverrides())) {
				change := override.GetTagOverrides()[tag]
				if change.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_UPSERT {
					if _, err := expr.Compile(change.GetValue()); err != nil {
						note(fmt.Sprintf("%s.overrides[%d].tagOverrides.%s.value", field, j, tag), fmt.Sprintf("%v: the tag stays as it is", err))
					}
				}
			}
		}
	}
	if refs := targets(&o.Spec); len(refs) > 0 {
		for i, ref := range refs {
			if refKind(ref) == "" {
				note(fmt.Sprintf("spec.targetRefs[%d]", i), fmt.Sprintf("%s is of a kind that telemetry is not attached to", strings.TrimSpace(ref.GetKind())))
			}
		}
	}
	return out
}
