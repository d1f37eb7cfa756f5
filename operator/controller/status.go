package controller

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// States of an installation and its components, as Istio names them.
const (
	stateReconciling = "RECONCILING"
	stateHealthy     = "HEALTHY"
	stateError       = "ERROR"
)

// status is how far an installation is.
type status struct {
	State, Message string
	Components     map[string]componentStatus
}

type componentStatus struct{ State, Error string }

// fail says that a component is in the way.
func (s *status) fail(component string, err error) {
	if component != "" {
		s.Components[component] = componentStatus{State: stateError, Error: err.Error()}
	}
}

// recorder keeps a status in line with an installation.
type recorder struct {
	status  *status
	current string
}

// Started implements install.Report.
func (r *recorder) Started(component string) { r.current = component }

// Waiting implements install.Report.
func (r *recorder) Waiting(string, string) {}

// Done implements install.Report.
func (r *recorder) Done(component string) {
	r.status.Components[component] = componentStatus{State: stateHealthy}
	r.current = ""
}

// Note implements install.Report.
func (r *recorder) Note(string) {}

// write stores a status, unless it is the one that is stored.
func (c *Controller) write(ctx context.Context, u *unstructured.Unstructured, s status) error {
	latest, err := c.client.Get(ctx, u.GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	old, _, _ := unstructured.NestedMap(latest.Object, "status")
	next := s.object(u.GetGeneration(), old)
	if equality.Semantic.DeepEqual(old, next) {
		return nil
	}
	latest.Object["status"] = next
	_, err = c.client.UpdateStatus(ctx, latest, options())
	return err
}

// object is the status as the API has it. A condition that does not change keeps the time of its last change.
func (s status) object(generation int64, old map[string]any) map[string]any {
	ready := map[string]any{"type": "Ready", "status": "False", "reason": s.State, "message": s.Message, "observedGeneration": generation}
	if s.State == stateHealthy {
		ready["status"] = "True"
	}
	ready["lastTransitionTime"] = time.Now().UTC().Format(time.RFC3339)
	if list, _ := old["conditions"].([]any); len(list) == 1 {
		if before, _ := list[0].(map[string]any); before["status"] == ready["status"] {
			ready["lastTransitionTime"] = before["lastTransitionTime"]
		}
	}
	out := map[string]any{"status": s.State, "conditions": []any{ready}}
	if s.Message != "" {
		out["message"] = s.Message
	}
	components := map[string]any{}
	for name, c := range s.Components {
		component := map[string]any{"status": c.State}
		if c.Error != "" {
			component["error"] = c.Error
		}
		components[name] = component
	}
	if len(components) > 0 {
		out["componentStatus"] = components
	}
	return out
}
