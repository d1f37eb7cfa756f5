package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

// fieldManager owns what suites apply.
const fieldManager = "isthmus-e2e"

// parse splits a manifest into objects; those of namespaced kinds that name no namespace get one when they are applied.
func parse(manifest string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("parse manifest: %w\n%s", err, manifest)
		case len(o.Object) == 0:
			continue
		case o.IsList():
			if err := o.EachListItem(func(i runtime.Object) error { return appendItem(&out, i) }); err != nil {
				return nil, err
			}
		default:
			out = append(out, o)
		}
	}
}

func appendItem(out *[]*unstructured.Unstructured, item runtime.Object) error {
	o, ok := item.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("a list holds a %T", item)
	}
	*out = append(*out, o)
	return nil
}

// resource finds where an object lives.
func (c *Cluster) resource(o *unstructured.Unstructured, namespace string) (dynamic.ResourceInterface, error) {
	gvk := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if c.remap(err) {
		mapping, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("the API server has no %s: %w", gvk, err)
	}
	all := c.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return all, nil
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(or(namespace, "default"))
	}
	return all.Namespace(o.GetNamespace()), nil
}

// Apply applies all objects of a manifest; those of namespaced kinds that name no namespace go into the given one.
func (c *Cluster) Apply(ctx context.Context, namespace, manifest string) error {
	objects, err := parse(manifest)
	if err != nil {
		return err
	}
	for _, o := range objects {
		resource, err := c.resource(o, namespace)
		if err != nil {
			return err
		}
		if _, err := resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("apply %s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
	return nil
}

// Delete deletes all objects of a manifest, the last first. What is not there is no error.
func (c *Cluster) Delete(ctx context.Context, namespace, manifest string) error {
	objects, err := parse(manifest)
	if err != nil {
		return err
	}
	for _, o := range slices.Backward(objects) {
		resource, err := c.resource(o, namespace)
		if err != nil {
			return err
		}
		if err := resource.Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
	return nil
}

// Sample reads manifests of the samples, by their paths below that directory, with images of the hub and tag at hand.
func (c *Cluster) Sample(paths ...string) (string, error) {
	var b bytes.Buffer
	for _, p := range paths {
		data, err := os.ReadFile(filepath.Join(c.Samples, filepath.FromSlash(p)))
		if err != nil {
			return "", fmt.Errorf("read sample: %w", err)
		}
		b.WriteString("---\n")
		b.Write(data)
		b.WriteString("\n")
	}
	return c.Images(b.String()), nil
}

// Images replaces the project's default hub and tag in a manifest.
func (c *Cluster) Images(manifest string) string {
	lines := strings.Split(manifest, "\n")
	for i, l := range lines {
		if at := strings.Index(l, "image: docker.io/isthmus/"); at >= 0 {
			name, _, _ := strings.Cut(strings.TrimSpace(l[at+len("image: docker.io/isthmus/"):]), ":")
			lines[i] = l[:at] + "image: " + c.Hub + "/" + name + ":" + c.Tag
		}
	}
	return strings.Join(lines, "\n")
}

// Label sets labels of a namespace; an empty value removes the label.
func (c *Cluster) Label(ctx context.Context, namespace string, labels map[string]string) error {
	var pairs []string
	for k, v := range labels {
		value := fmt.Sprintf("%q", v)
		if v == "" {
			value = "null"
		}
		pairs = append(pairs, fmt.Sprintf("%q:%s", k, value))
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%s}}}`, strings.Join(pairs, ","))
	_, err := c.Client.CoreV1().Namespaces().Patch(ctx, namespace, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("label namespace %s: %w", namespace, err)
	}
	return nil
}

// CreateNamespace makes a namespace, waiting for one of that name to go if need be.
func (c *Cluster) CreateNamespace(ctx context.Context, name string, labels map[string]string) error {
	return Eventually(ctx, "namespace "+name+" is made", func(ctx context.Context) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		_, err := c.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		return err
	})
}

// DeleteNamespace deletes a namespace and waits until it is gone.
func (c *Cluster) DeleteNamespace(ctx context.Context, name string) error {
	if err := c.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	return Eventually(ctx, "namespace "+name+" is gone", func(ctx context.Context) error {
		_, err := c.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = errors.New("it is still there")
		}
		return err
	})
}

// Eventually tries until check succeeds or the context ends, and says then what was wrong last.
func Eventually(ctx context.Context, what string, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
