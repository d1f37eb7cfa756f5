package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/operator/install"
	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

// reconcile installs what an object asks for, and says in its status how that went.
func (c *Controller) reconcile(ctx context.Context, u *unstructured.Unstructured) error {
	if !slices.Contains(u.GetFinalizers(), finalizer) {
		u = u.DeepCopy()
		u.SetFinalizers(append(u.GetFinalizers(), finalizer))
		var err error
		if u, err = c.client.Update(ctx, u, options()); err != nil {
			return fmt.Errorf("put the finalizer: %w", err)
		}
	}
	what, err := c.render(u)
	if err != nil {
		return c.failed(ctx, u, status{}, err)
	}
	now := status{State: stateReconciling, Components: map[string]componentStatus{}}
	for _, component := range what.Components {
		now.Components[component.Name] = componentStatus{State: stateReconciling}
	}
	if err := c.write(ctx, u, now); err != nil {
		return err
	}
	report := &recorder{status: &now}
	if err := c.cluster.Install(ctx, what, install.Options{Timeout: c.cfg.Timeout, Report: report}); err != nil {
		now.fail(report.current, err)
		return c.failed(ctx, u, now, err)
	}
	now.State = stateHealthy
	c.cfg.Log.Info("installation is in line", "object", u.GetName(), "generation", u.GetGeneration())
	return c.write(ctx, u, now)
}

// render reads an object as istioctl reads a file.
func (c *Controller) render(u *unstructured.Unstructured) (*render.Installation, error) {
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": iop.APIVersion, "kind": iop.Kind, "spec": u.Object["spec"],
		"metadata": map[string]any{"name": u.GetName(), "namespace": u.GetNamespace()},
	})
	if err != nil {
		return nil, err
	}
	op, err := iop.Read([]iop.File{{Name: u.GetName(), Data: data}}, nil)
	if err != nil {
		return nil, err
	}
	if op.Spec.InstallPackagePath != "" {
		return nil, fmt.Errorf("spec.installPackagePath: charts are those of the operator")
	}
	o := c.cfg.Render
	if o.KubeVersion, err = c.cluster.Version(); err != nil {
		return nil, err
	}
	return render.Render(op, o)
}

// failed writes why an object is not in line, and returns that.
func (c *Controller) failed(ctx context.Context, u *unstructured.Unstructured, now status, why error) error {
	now.State, now.Message = stateError, why.Error()
	if err := c.write(ctx, u, now); err != nil {
		c.cfg.Log.Error("write a status", "object", u.GetName(), "error", err)
	}
	return why
}

// remove takes away what an object installed, then lets it go.
func (c *Controller) remove(ctx context.Context, u *unstructured.Unstructured) error {
	if !slices.Contains(u.GetFinalizers(), finalizer) {
		return nil
	}
	removal, err := c.cluster.FindOwner(ctx, cmp.Or(u.GetName(), render.Owner))
	if err != nil {
		return err
	}
	if err := c.cluster.Remove(ctx, removal, install.Options{}); err != nil {
		return err
	}
	latest, err := c.client.Get(ctx, u.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	latest.SetFinalizers(slices.DeleteFunc(latest.GetFinalizers(), func(f string) bool { return f == finalizer }))
	if _, err := c.client.Update(ctx, latest, options()); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take the finalizer away: %w", err)
	}
	c.cfg.Log.Info("installation is removed", "object", u.GetName())
	return nil
}
