package admin

import (
	"net/http"
	"slices"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// What makes a proxy unready that has been ready.
const (
	failed = "failed by /healthcheck/fail"
	ending = "shutting down"
)

// Readiness is ready once every task is done, unless it was made to fail, and never again after the end was announced.
type Readiness struct{ *telemetry.Readiness }

// NewReadiness waits for the tasks of the given names.
func NewReadiness(tasks ...string) *Readiness {
	return &Readiness{telemetry.NewReadiness(http.StatusServiceUnavailable, tasks...)}
}

// Fail makes the proxy unready by request of a person, or undoes that.
func (r *Readiness) Fail(fail bool) {
	if fail {
		r.Block(failed)
	} else {
		r.Done(failed)
	}
}

// End announces the end.
func (r *Readiness) End() { r.Block(ending) }

// Draining is whether the proxy is ending.
func (r *Readiness) Draining() bool {
	return slices.ContainsFunc(r.Pending(), func(reason string) bool { return reason == failed || reason == ending })
}
