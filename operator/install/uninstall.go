package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// removalTimeout is how long the pods of a workload may take to end.
const removalTimeout = 2 * time.Minute

// Removal is what an uninstallation removes.
type Removal struct {
	Objects []*unstructured.Unstructured
	// Purge tells that what the mesh itself made is removed as well.
	Purge bool
	// Resources counts the users' objects that go with the definitions of their kinds, by kind.
	Resources map[string]int
}

// FindAll returns all installations in the cluster, of every revision, however they were installed, and what they made while they ran.
func (c *Cluster) FindAll(ctx context.Context) (*Removal, error) {
	out := &Removal{Purge: true, Resources: map[string]int{}}
	seen := map[string]bool{}
	// The charts put the first label on everything, the installer the second one too.
	for _, selector := range []string{render.LabelComponent, render.LabelOwner} {
		found, err := c.owned(ctx, selector)
		if err != nil {
			return nil, err
		}
		for _, u := range found {
			if !seen[Name(u)] {
				seen[Name(u)] = true
				out.Objects = append(out.Objects, u)
			}
		}
	}
	for _, u := range out.Objects {
		if u.GetKind() != "CustomResourceDefinition" {
			continue
		}
		kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
		group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
		versions, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
		if len(versions) == 0 {
			continue
		}
		version, _ := versions[0].(map[string]any)["name"].(string)
		items, err := c.list(ctx, schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, "", "")
		if err != nil {
			return nil, err
		}
		if len(items) > 0 {
			out.Resources[kind] = len(items)
		}
	}
	made, err := c.made(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range made {
		if !seen[Name(u)] {
			seen[Name(u)] = true
			out.Objects = append(out.Objects, u)
		}
	}
	return out, nil
}

// FindRevision returns what belongs to one revision only, with the leases that its control planes have made.
func (c *Cluster) FindRevision(ctx context.Context, revision string) (*Removal, error) {
	found, err := c.owned(ctx, render.LabelOwner+","+render.LabelRevision+"="+revision)
	if err != nil {
		return nil, err
	}
	out := &Removal{}
	for _, u := range found {
		if !render.Shared(u.GetLabels()[render.LabelComponent]) {
			out.Objects = append(out.Objects, u)
		}
	}
	leases, err := c.list(ctx, leaseKind(), "", "")
	if err != nil {
		return nil, err
	}
	for i := range leases {
		if u := &leases[i]; slices.ContainsFunc(locks(), func(name string) bool { return u.GetName() == name+"-"+revision }) {
			out.Objects = append(out.Objects, u)
		}
	}
	return out, nil
}

// FindOwner returns what the installation of a name consists of. Definitions of kinds stay.
func (c *Cluster) FindOwner(ctx context.Context, owner string) (*Removal, error) {
	found, err := c.owned(ctx, render.LabelOwner+"="+owner)
	if err != nil {
		return nil, err
	}
	return &Removal{Objects: slices.DeleteFunc(found, func(u *unstructured.Unstructured) bool { return u.GetKind() == "CustomResourceDefinition" })}, nil
}

// Find returns those objects of an installation that are in the cluster. Definitions of kinds stay: users' objects are of these kinds.
func (c *Cluster) Find(ctx context.Context, i *render.Installation) (*Removal, error) {
	out := &Removal{}
	for _, want := range i.Objects() {
		if want.GetKind() == "CustomResourceDefinition" {
			continue
		}
		u, err := c.get(ctx, want.GroupVersionKind(), want.GetNamespace(), want.GetName())
		if err != nil {
			return nil, err
		}
		if u != nil {
			out.Objects = append(out.Objects, u)
		}
	}
	return out, nil
}

// made returns what control planes make while they run: root certificates, their key, leases, and deployed gateways.
func (c *Cluster) made(ctx context.Context) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, m := range []struct {
		gvk      schema.GroupVersionKind
		selector string
		is       func(*unstructured.Unstructured) bool
	}{
		{schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, "", named("istio-ca-root-cert", "istio-ca-crl", "istio-leader", "istio-gateway-leader", "istio-namespace-controller-election")},
		{schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, "", named("istio-ca-secret", "istio-cni-kubeconfig")},
		{leaseKind(), "", lock},
		{schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1beta1", Kind: "ClusterTrustBundle"}, "", named("istio.io:istiod-ca:root-cert")},
		{schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GatewayClass"}, "", ours},
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, labelManaged, all},
		{schema.GroupVersionKind{Version: "v1", Kind: "Service"}, labelManaged, all},
		{schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}, labelManaged, all},
		{schema.GroupVersionKind{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}, labelManaged, all},
		{schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"}, labelManaged, all},
	} {
		items, err := c.list(ctx, m.gvk, "", m.selector)
		if err != nil {
			return nil, err
		}
		for i := range items {
			if m.is(&items[i]) {
				out = append(out, &items[i])
			}
		}
	}
	return out, nil
}

// labelManaged is on what the control plane deploys for a Gateway.
const labelManaged = "gateway.istio.io/managed"

func all(*unstructured.Unstructured) bool { return true }

func named(names ...string) func(*unstructured.Unstructured) bool {
	return func(u *unstructured.Unstructured) bool { return slices.Contains(names, u.GetName()) }
}

func leaseKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"}
}

// locks are the names of the control plane's leases, after which a revision may stand.
func locks() []string {
	return []string{
		"istio-leader", "istio-namespace-controller-election", "istio-serviceexport-controller-election",
		"istio-clustertrustbundle-controller-election", "istio-gateway-status-leader", "istio-status-leader", "istio-analyze-leader",
		"istio-gateway-deployment", "istio-gateway-inferencepool", "istio-node-untaint", "istio-ip-autoallocate", "istio-webhook-leader",
	}
}

// lock tells the control plane's leases of any revision.
func lock(u *unstructured.Unstructured) bool {
	return slices.ContainsFunc(locks(), func(name string) bool { return u.GetName() == name || strings.HasPrefix(u.GetName(), name+"-") })
}

// ours tells the classes that the control plane makes.
func ours(u *unstructured.Unstructured) bool {
	controller, _, _ := unstructured.NestedString(u.Object, "spec", "controllerName")
	return strings.HasPrefix(controller, "istio.io/")
}

// Remove removes what was found. The node agents go first and may still use their accounts, then the node proxies, then gateways, then
// control planes, then what these deployed; each ends before the next begins, so that nobody makes again what was removed.
func (c *Cluster) Remove(ctx context.Context, r *Removal, o Options) error {
	var rest []*unstructured.Unstructured
	stages := map[int][]*unstructured.Unstructured{}
	for _, u := range r.Objects {
		if at := stage(u); at >= 0 {
			stages[at] = append(stages[at], u)
		} else {
			rest = append(rest, u)
		}
	}
	for at := range lastStage + 1 {
		if err := c.removeStage(ctx, stages[at], o); err != nil {
			return err
		}
	}
	if r.Purge && !o.DryRun {
		// What the control plane made after it was looked for, in its last moments.
		again, err := c.made(ctx)
		if err != nil {
			return err
		}
		rest = append(rest, again...)
	}
	var problems []error
	for _, u := range rest {
		problems = append(problems, c.remove(ctx, u, o.DryRun))
	}
	if err := errors.Join(problems...); err != nil || o.DryRun {
		return err
	}
	return c.gone(ctx, rest)
}

const lastStage = 5

// stage is when an object is removed; -1 is after all workloads.
func stage(u *unstructured.Unstructured) int {
	component := u.GetLabels()[render.LabelComponent]
	switch kind := u.GetKind(); {
	case kind == "MutatingWebhookConfiguration" || kind == "ValidatingWebhookConfiguration":
		return 0 // a webhook without its server would stop others
	case kind != "Deployment" && kind != "DaemonSet":
		return -1
	case u.GetLabels()[labelManaged] != "":
		return lastStage // the control plane would deploy them again
	case component == render.CNI:
		return 1
	case component == render.Ztunnel:
		return 2
	case component == render.Pilot || component == render.IstiodRemote:
		return 4
	}
	return 3
}

// removeStage removes objects and waits until the pods of workloads have ended.
func (c *Cluster) removeStage(ctx context.Context, objects []*unstructured.Unstructured, o Options) error {
	for _, u := range objects {
		if err := c.remove(ctx, u, o.DryRun); err != nil {
			return err
		}
	}
	if o.DryRun {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, removalTimeout)
	defer cancel()
	for _, u := range objects {
		_, selector, err := state(u)
		if err != nil || selector == nil {
			continue
		}
		component := u.GetLabels()[render.LabelComponent]
		o.report().Waiting(component, Name(u)+": its pods are to end")
		matching, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return fmt.Errorf("%s: %w", Name(u), err)
		}
		left := 0
		err = poll(limited, func(ctx context.Context) (bool, error) {
			items, err := c.list(ctx, pods(), u.GetNamespace(), matching.String())
			left = len(items)
			return left == 0, err
		})
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			o.report().Note(fmt.Sprintf("%s: %d pods have not ended after %s; going on", Name(u), left, removalTimeout))
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// gone waits until objects are deleted, which those with finalizers take a while to be.
func (c *Cluster) gone(ctx context.Context, objects []*unstructured.Unstructured) error {
	limited, cancel := context.WithTimeout(ctx, removalTimeout)
	defer cancel()
	var left []string
	err := poll(limited, func(ctx context.Context) (bool, error) {
		left = left[:0]
		for _, u := range objects {
			now, err := c.get(ctx, u.GroupVersionKind(), u.GetNamespace(), u.GetName())
			if err != nil {
				return false, err
			}
			if now != nil && now.GetUID() == u.GetUID() {
				left = append(left, Name(u))
			}
		}
		return len(left) == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("not gone after %s: %s", removalTimeout, strings.Join(left, ", "))
	}
	return err
}
