package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// DefaultTimeout is how long a component may take to become ready.
const DefaultTimeout = 5 * time.Minute

// Options of an installation.
type Options struct {
	// DryRun has the cluster check everything and change nothing.
	DryRun bool
	// Timeout is how long each component may take to become ready; 0 is DefaultTimeout, less is not to wait.
	Timeout time.Duration
	// Report is told what happens; nil tells nobody.
	Report Report
}

// Report is told what happens.
type Report interface {
	// Started says that a component is worked on, Waiting what it waits for, Done that it is installed or removed.
	Started(component string)
	Waiting(component, what string)
	Done(component string)
	// Note says something beside.
	Note(text string)
}

type silent struct{}

func (silent) Started(string)         {}
func (silent) Waiting(string, string) {}
func (silent) Done(string)            {}
func (silent) Note(string)            {}

func (o Options) report() Report {
	if o.Report == nil {
		return silent{}
	}
	return o.Report
}

func (o Options) timeout() time.Duration {
	if o.Timeout == 0 {
		return DefaultTimeout
	}
	return o.Timeout
}

// Install applies the components in their order, each when the one before is ready, and then removes what a former installation of the
// same name and revision left.
func (c *Cluster) Install(ctx context.Context, i *render.Installation, o Options) error {
	for _, component := range i.Components {
		o.report().Started(component.Name)
		if err := c.namespaces(ctx, component, o.DryRun); err != nil {
			return err
		}
		if err := c.applyAll(ctx, component, o.DryRun); err != nil {
			return fmt.Errorf("%s: %w", component.Name, err)
		}
		if !o.DryRun && o.timeout() > 0 {
			if err := c.wait(ctx, component, o); err != nil {
				return err
			}
		}
		o.report().Done(component.Name)
	}
	old, err := c.leftover(ctx, i)
	if err != nil {
		return fmt.Errorf("look for what a former installation left: %w", err)
	}
	for _, u := range old {
		o.report().Note("Removed " + Name(u) + ", which is not part of the installation any more")
		if err := c.remove(ctx, u, o.DryRun); err != nil {
			return err
		}
	}
	return nil
}

// namespaces creates those of a component that do not exist.
func (c *Cluster) namespaces(ctx context.Context, component render.Component, dryRun bool) error {
	seen := map[string]bool{}
	for _, u := range component.Objects {
		name := u.GetNamespace()
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
		existing, err := c.get(ctx, ns.GroupVersionKind(), "", name)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
		if existing != nil {
			continue
		}
		// The node agent and the node proxy need more than a namespace allows by default where pod security is enforced.
		ns.SetLabels(map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})
		if err := c.apply(ctx, ns, dryRun); err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	return nil
}

// applyAll applies the objects of a component; all that the cluster refuses is reported.
func (c *Cluster) applyAll(ctx context.Context, component render.Component, dryRun bool) error {
	var problems []error
	for _, u := range component.Objects {
		err := c.retry(ctx, u, dryRun)
		if dryRun && missingNamespace(err) {
			continue // it would exist by then
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("apply %s: %w", Name(u), err))
		}
	}
	return errors.Join(problems...)
}

// retry applies an object, again while the API server is busy.
func (c *Cluster) retry(ctx context.Context, u *unstructured.Unstructured, dryRun bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var last error
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		last = c.apply(ctx, u, dryRun)
		return last == nil, last
	})
	if errors.Is(err, context.DeadlineExceeded) && last != nil {
		return last
	}
	return err
}

func missingNamespace(err error) bool {
	return apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces ")
}

// leftover returns what a former installation of this name made that is not part of this one. An installation of another revision than
// the default one leaves alone what all revisions share.
func (c *Cluster) leftover(ctx context.Context, i *render.Installation) ([]*unstructured.Unstructured, error) {
	found, err := c.owned(ctx, render.LabelOwner+"="+i.Owner)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, u := range i.Objects() {
		wanted[Name(u)] = true
	}
	var out []*unstructured.Unstructured
	for _, u := range found {
		labels := u.GetLabels()
		shared := render.Shared(labels[render.LabelComponent])
		switch {
		case wanted[Name(u)]:
		case u.GetKind() == "CustomResourceDefinition": // it would take the objects of its kind along
		case shared && i.Revision != "default":
		case !shared && labels[render.LabelRevision] != i.Revision:
		default:
			out = append(out, u)
		}
	}
	return out, nil
}
