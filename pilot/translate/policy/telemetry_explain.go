package policy

import (
	"slices"

	telemetryapi "istio.io/api/telemetry/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
)

// Applied are the objects that say what a filter chain tells, the most general one first.
func (in TelemetryInput) Applied() []*telemetryv1.Telemetry {
	var out []*telemetryv1.Telemetry
	for _, level := range in.levels() {
		i := slices.IndexFunc(in.Objects, func(o *telemetryv1.Telemetry) bool { return level == telemetrySpec(o) })
		out = append(out, in.Objects[i])
	}
	return out
}

func telemetrySpec(o *telemetryv1.Telemetry) *telemetryapi.Telemetry { return &o.Spec }
