package why

import (
	"fmt"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// telemetryFact is what the proxy tells of what passes this chain, in a line, and which objects say so.
func (s *station) telemetryFact(h *Hop, chain *l7.Chain) {
	var logs []*accesslogv3.AccessLog
	var said []string
	switch {
	case chain.HTTP != nil:
		logs = chain.HTTP.AccessLogs
	case chain.TCP != nil:
		logs = chain.TCP.AccessLogs
	}
	said = append(said, logsText(logs))
	if chain.HTTP != nil {
		if t := chain.HTTP.Tracing; t != nil {
			said = append(said, fmt.Sprintf("traces of %g %% to %s", t.Sampled(), t.Provider.Cluster))
		} else {
			said = append(said, "no traces")
		}
	}
	said = append(said, metricsText(chain))
	objects := policy.TelemetryInput{Mesh: s.w.m.Mesh.Config(), Target: s.target(), Objects: all[*telemetryv1.Telemetry](s.w.m, "Telemetry")}.Applied()
	var names []string
	var ref *Ref
	for _, o := range objects {
		names = append(names, o.Namespace+"/"+o.Name)
		ref = s.w.m.World.Of(o, "spec") // the last one has the last word
		if f := s.w.m.faults("Telemetry", o.Namespace, o.Name); len(f) > 0 {
			s.w.warn(s.w.m.World.Of(o, orSpec(faultField(f))), "", "Telemetry %s/%s: %s", o.Namespace, o.Name, describe(f))
		}
	}
	text := strings.Join(said, ", ")
	if len(names) > 0 {
		text += "; as Telemetry " + strings.Join(names, ", ") + " says"
	}
	h.add("telemetry", text, ref)
}

func orSpec(field string) string { return first(field, "spec") }

func logsText(logs []*accesslogv3.AccessLog) string {
	var to []string
	for _, l := range logs {
		text := strings.TrimPrefix(l.GetName(), "envoy.access_loggers.")
		file := &filelogv3.FileAccessLog{}
		if l.GetTypedConfig().MessageIs(file) && l.GetTypedConfig().UnmarshalTo(file) == nil {
			text = file.GetPath()
		}
		if l.GetFilter() != nil {
			text += " (filtered)"
		}
		to = addOnce(to, text)
	}
	if len(to) == 0 {
		return "no access log"
	}
	return "access log to " + strings.Join(to, " and ")
}

func metricsText(chain *l7.Chain) string {
	var off, changed []string
	for name, m := range chain.Told.GetFields()["metrics"].GetStructValue().GetFields() {
		if m.GetStructValue().GetFields()["disabled"].GetBoolValue() {
			off = append(off, name)
		} else {
			changed = append(changed, name)
		}
	}
	slices.Sort(off)
	slices.Sort(changed)
	text := "metrics"
	if len(off) > 0 {
		text += " without " + strings.Join(off, ", ")
	}
	if len(changed) > 0 {
		text += " with other tags of " + strings.Join(changed, ", ")
	}
	return text
}
