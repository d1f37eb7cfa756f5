// Package install puts a rendered installation into a cluster, waits for it, and takes it away again.
//
// cluster.go reaches the objects, install.go applies and prunes, wait.go waits and says what is in the way, uninstall.go removes,
// verify.go compares, progress.go tells the person.
package install

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// fieldManager owns the fields that an installation sets.
const fieldManager = "istio-operator"

// pollEvery is how often a wait looks.
const pollEvery = 500 * time.Millisecond

// Cluster is the API of a cluster, for objects of any kind.
type Cluster struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
	info   discovery.DiscoveryInterface
}

// Connect returns a cluster's API.
func Connect(config *rest.Config) (*Cluster, error) {
	config = rest.CopyConfig(config)
	// An installation is some hundred requests of one person; the API server has its own limits.
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	info, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{client: client, info: info, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(info))}, nil
}

// Version returns the version of the cluster, as v1.34.4.
func (c *Cluster) Version() (string, error) {
	v, err := c.info.ServerVersion()
	if err != nil {
		return "", fmt.Errorf("ask the cluster for its version: %w", err)
	}
	return v.GitVersion, nil
}

// on returns the client of a kind; namespace is ignored for kinds of the cluster's scope.
func (c *Cluster) on(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		// It may have been defined since the cluster was asked for its kinds.
		c.mapper.Reset()
		mapping, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("kind %s of %s: %w", gvk.Kind, gvk.GroupVersion(), err)
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return c.client.Resource(mapping.Resource).Namespace(namespace), nil
	}
	return c.client.Resource(mapping.Resource), nil
}

// get returns an object as the cluster has it; nil when it has none.
func (c *Cluster) get(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (*unstructured.Unstructured, error) {
	on, err := c.on(gvk, namespace)
	if err != nil {
		return nil, err
	}
	u, err := on.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return u, err
}

// list returns the objects of a kind in all namespaces, or one, by labels. A kind that the cluster does not have has none.
func (c *Cluster) list(ctx context.Context, gvk schema.GroupVersionKind, namespace, selector string) ([]unstructured.Unstructured, error) {
	on, err := c.on(gvk, namespace)
	if meta.IsNoMatchError(errors.Unwrap(err)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := on.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", gvk.Kind, err)
	}
	return found.Items, nil
}

// apply stores the fields that an object sets, and no others.
func (c *Cluster) apply(ctx context.Context, u *unstructured.Unstructured, dryRun bool) error {
	on, err := c.on(u.GroupVersionKind(), u.GetNamespace())
	if err != nil {
		return err
	}
	data, err := u.MarshalJSON()
	if err != nil {
		return err
	}
	yes := true
	options := metav1.PatchOptions{FieldManager: fieldManager, Force: &yes}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err = on.Patch(ctx, u.GetName(), types.ApplyPatchType, data, options)
	return err
}

// remove deletes an object; one that is not there is no error.
func (c *Cluster) remove(ctx context.Context, u *unstructured.Unstructured, dryRun bool) error {
	on, err := c.on(u.GroupVersionKind(), u.GetNamespace())
	if err != nil {
		return err
	}
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	if err := on.Delete(ctx, u.GetName(), options); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", Name(u), err)
	}
	return nil
}

// Name is how an object is called in messages: Deployment/istio-system/istiod.
func Name(u *unstructured.Unstructured) string {
	if u.GetNamespace() == "" {
		return u.GetKind() + "/" + u.GetName()
	}
	return u.GetKind() + "/" + u.GetNamespace() + "/" + u.GetName()
}

// kinds are all that an installation may consist of. Objects of other kinds are not looked for.
func kinds() []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	for _, g := range []struct {
		group, version string
		kinds          []string
	}{
		{"admissionregistration.k8s.io", "v1", []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"}},
		{"autoscaling", "v2", []string{"HorizontalPodAutoscaler"}},
		{"policy", "v1", []string{"PodDisruptionBudget"}},
		{"apps", "v1", []string{"Deployment", "DaemonSet"}},
		{"", "v1", []string{"Service", "ConfigMap", "ResourceQuota"}},
		{"discovery.k8s.io", "v1", []string{"EndpointSlice"}},
		{"networking.k8s.io", "v1", []string{"NetworkPolicy"}},
		{"rbac.authorization.k8s.io", "v1", []string{"ClusterRoleBinding", "RoleBinding", "ClusterRole", "Role"}},
		{"", "v1", []string{"ServiceAccount"}},
		{"apiextensions.k8s.io", "v1", []string{"CustomResourceDefinition"}},
	} {
		for _, kind := range g.kinds {
			out = append(out, schema.GroupVersionKind{Group: g.group, Version: g.version, Kind: kind})
		}
	}
	return out
}

// owned returns all objects of the installer's kinds with these labels, in the order in which they are removed. Objects that a
// controller made of another object are not ours, though they inherit labels.
func (c *Cluster) owned(ctx context.Context, selector string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, gvk := range kinds() {
		items, err := c.list(ctx, gvk, "", selector)
		if err != nil {
			return nil, err
		}
		for i := range items {
			if metav1.GetControllerOf(&items[i]) == nil && items[i].GetDeletionTimestamp() == nil {
				out = append(out, &items[i])
			}
		}
	}
	return out, nil
}

// poll calls look until it says done, ctx ends, or it fails. Errors of the API that pass by themselves are not failures.
func poll(ctx context.Context, look func(context.Context) (done bool, err error)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		done, err := look(ctx)
		if done || err != nil && !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func passing(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err)
}
