package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// Verify compares an installation with the cluster. It returns how many objects are as they should be; the error names the others, and
// says what is the matter with each.
func (c *Cluster) Verify(ctx context.Context, i *render.Installation) (good int, err error) {
	var problems []error
	for _, want := range i.Objects() {
		u, err := c.get(ctx, want.GroupVersionKind(), want.GetNamespace(), want.GetName())
		switch {
		case err != nil:
			return good, err
		case u == nil:
			problems = append(problems, fmt.Errorf("%s: does not exist", Name(want)))
			continue
		}
		unready, err := c.unready(ctx, []*unstructured.Unstructured{want})
		if err != nil {
			return good, err
		}
		for _, why := range unready {
			problems = append(problems, errors.New(why))
		}
		if len(unready) == 0 {
			good++
		}
	}
	return good, errors.Join(problems...)
}

// VerifyInstalled looks at whatever is installed, without knowing what should be: whether workloads are ready. It returns how many
// objects there are by component.
func (c *Cluster) VerifyInstalled(ctx context.Context) (components map[string]int, err error) {
	components = map[string]int{}
	found, err := c.owned(ctx, render.LabelComponent)
	if err != nil {
		return nil, err
	}
	for _, u := range found {
		components[u.GetLabels()[render.LabelComponent]]++
	}
	unready, err := c.unready(ctx, found)
	if err != nil {
		return components, err
	}
	var problems []error
	for _, why := range unready {
		problems = append(problems, errors.New(why))
	}
	if len(found) == 0 {
		problems = append(problems, errors.New("nothing of the mesh is installed"))
	}
	return components, errors.Join(problems...)
}

// Versions returns the versions of the installers that the installed objects name, each once.
func (c *Cluster) Versions(ctx context.Context) ([]string, error) {
	found, err := c.owned(ctx, render.LabelComponent)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, u := range found {
		labels := u.GetLabels()
		if v := cmp.Or(labels[render.LabelVersion], labels["app.kubernetes.io/version"]); v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out, nil
}

// HasGatewayAPI tells whether the cluster knows the Gateway API's Gateways.
func (c *Cluster) HasGatewayAPI(ctx context.Context) (bool, error) {
	u, err := c.get(ctx, schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, "", "gateways.gateway.networking.k8s.io")
	return u != nil, err
}
