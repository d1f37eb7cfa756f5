// Package objects applies and deletes objects of an API server as scenarios and fixtures have them: with their status, and at once.
package objects

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const manager = "conformance"

// Cluster applies and deletes objects. It remembers those that are there, so that they can be deleted.
type Cluster struct {
	client dynamic.Interface
	mapper meta.RESTMapper
	kinds  map[string]schema.GroupVersionKind // by the kind's name
	there  []string                           // references, in the order in which they came
}

// New returns one that has applied nothing.
func New(config *rest.Config) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // no limit
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	served, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(served)
	if err != nil {
		return nil, err
	}
	return &Cluster{client: client, mapper: restmapper.NewDiscoveryRESTMapper(groups), kinds: map[string]schema.GroupVersionKind{}}, nil
}

// resource finds the interface to an object by its reference.
func (c *Cluster) resource(ref string) (r dynamic.ResourceInterface, name string, err error) {
	parts := strings.Split(ref, "/")
	gvk, ok := c.kinds[parts[0]]
	if !ok || len(parts) < 2 {
		return nil, "", fmt.Errorf("%s: no object of the kind has been applied, or it is not Kind/namespace/name", ref)
	}
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, "", err
	}
	if len(parts) == 2 {
		return c.client.Resource(mapping.Resource), parts[1], nil
	}
	return c.client.Resource(mapping.Resource).Namespace(parts[1]), parts[2], nil
}

// Ref is the reference of an object: Kind/namespace/name, or Kind/name.
func Ref(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + "/" + o.GetName()
	}
	return o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
}

// Apply applies an object, and its status if it has one.
func (c *Cluster) Apply(ctx context.Context, o *unstructured.Unstructured) error {
	c.kinds[o.GetKind()] = o.GroupVersionKind()
	ref := Ref(o)
	r, name, err := c.resource(ref)
	if err != nil {
		return err
	}
	if !slices.Contains(c.there, ref) {
		c.there = append(c.there, ref)
	}
	options := metav1.ApplyOptions{FieldManager: manager, Force: true}
	if _, err := r.Apply(ctx, name, o, options); err != nil {
		return fmt.Errorf("apply %s: %w", ref, err)
	}
	if o.Object["status"] == nil {
		return nil
	}
	_, err = r.ApplyStatus(ctx, name, o, options)
	if apierrors.IsNotFound(err) {
		return nil // there is no such subresource, and the status is in place
	}
	if err != nil {
		return fmt.Errorf("apply the status of %s: %w", ref, err)
	}
	return nil
}

// Patch merges into an object that has been applied before; a status goes to the subresource.
func (c *Cluster) Patch(ctx context.Context, ref string, with map[string]any) error {
	r, name, err := c.resource(ref)
	if err != nil {
		return err
	}
	body, err := json.Marshal(with)
	if err != nil {
		return err
	}
	var subresource []string
	if with["status"] != nil {
		subresource = []string{"status"}
	}
	if _, err := r.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: manager}, subresource...); err != nil {
		return fmt.Errorf("patch %s: %w", ref, err)
	}
	return nil
}

// Remove deletes an object at once. No controller ends namespaces: they stay, without labels.
func (c *Cluster) Remove(ctx context.Context, ref string) error {
	r, name, err := c.resource(ref)
	if err != nil {
		return err
	}
	c.there = slices.DeleteFunc(c.there, func(have string) bool { return have == ref })
	if strings.HasPrefix(ref, "Namespace/") {
		o, err := r.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		o.SetLabels(nil)
		o.SetAnnotations(nil)
		_, err = r.Update(ctx, o, metav1.UpdateOptions{FieldManager: manager})
		return err
	}
	now := int64(0)
	if err := r.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", ref, err)
	}
	return nil
}

// Clear deletes all that was applied, the newest first.
func (c *Cluster) Clear(ctx context.Context) error {
	for _, ref := range slices.Backward(slices.Clone(c.there)) {
		if err := c.Remove(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}
