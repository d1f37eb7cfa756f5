package reach

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Each hands over the objects of a kind one by one, of a namespace or all, with what is wrong with each; the object is nil when it
// cannot be used. They are read in pages, so that what is not kept costs no memory. The error is ErrNotFound when the kind is not served.
// An object may come twice. Only ctx bounds the time.
func (m *Mesh) Each(ctx context.Context, kind kube.Kind, namespace string, take func(kube.Object, []kube.ObjectError)) error {
	defer m.begin("list %s", kind.Resource)()
	served := kube.NewServed()
	err := m.place.each(ctx, kind, namespace, func(raw []byte) { take(served.Decode(raw)) })
	if err != nil {
		return fmt.Errorf("list %s: %w", kind.Resource, late(ctx, err))
	}
	return nil
}

// EachRaw is Each with objects as they are kept, for those who look at fields and not at what they mean.
func (m *Mesh) EachRaw(ctx context.Context, kind kube.Kind, namespace string, take func(map[string]any)) error {
	defer m.begin("list %s", kind.Resource)()
	var broken error
	err := m.place.each(ctx, kind, namespace, func(raw []byte) {
		var object map[string]any
		if err := json.Unmarshal(raw, &object); err != nil {
			broken = err
			return
		}
		take(object)
	})
	if err == nil {
		err = broken
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", kind.Resource, late(ctx, err))
	}
	return nil
}

// Served returns the resources of the versions of a group; none where nothing is served.
func (m *Mesh) Served(ctx context.Context, group string) (map[string][]string, error) {
	place, ok := m.place.(*cluster)
	if !ok {
		return nil, nil
	}
	out := map[string][]string{}
	var versions struct {
		Versions []struct {
			Version string `json:"version"`
		} `json:"versions"`
	}
	if err := place.json(ctx, "/apis/"+group, &versions); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		return nil, fmt.Errorf("ask what is served of %s: %w", group, late(ctx, err))
	}
	for _, v := range versions.Versions {
		var list struct {
			Resources []struct {
				Name string `json:"name"`
			} `json:"resources"`
		}
		if err := place.json(ctx, "/apis/"+group+"/"+v.Version, &list); err != nil {
			return nil, fmt.Errorf("ask what is served of %s/%s: %w", group, v.Version, late(ctx, err))
		}
		for _, r := range list.Resources {
			if !strings.Contains(r.Name, "/") {
				out[r.Name] = append(out[r.Name], v.Version)
			}
		}
	}
	return out, nil
}

func (c *cluster) json(ctx context.Context, path string, into any) error {
	data, err := c.client.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return found(err)
	}
	return json.Unmarshal(data, into)
}

// each finds the version that is served.
func (c *cluster) each(ctx context.Context, kind kube.Kind, namespace string, take func([]byte)) error {
	var err error
	for _, version := range kind.Versions {
		if err = c.pages(ctx, kind, version, namespace, take); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return err
}

// pages reads all pages. When the API server has forgotten where a list went on, it begins anew.
func (c *cluster) pages(ctx context.Context, kind kube.Kind, version, namespace string, take func([]byte)) error {
	again := true
	for next := ""; ; {
		var list struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []json.RawMessage `json:"items"`
		}
		data, err := c.pageOf(kind, version, namespace, next).DoRaw(ctx)
		if apierrors.IsResourceExpired(err) && again {
			next, again = "", false
			continue
		}
		if err != nil {
			return found(err)
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
		for _, item := range list.Items {
			take(typed(item, kind, version))
		}
		if next = list.Metadata.Continue; next == "" {
			return nil
		}
	}
}

func (c *cluster) pageOf(kind kube.Kind, version, namespace, next string) *rest.Request {
	path := []string{"/apis", kind.GVK.Group, version}
	if kind.GVK.Group == "" {
		path = []string{"/api", version}
	}
	if namespace != "" && !kind.ClusterWide {
		path = append(path, "namespaces", namespace)
	}
	request := c.client.CoreV1().RESTClient().Get().AbsPath(slices.Concat(path, []string{kind.Resource})...).SetHeader("Accept", "application/json")
	request = request.Param("limit", strconv.Itoa(page))
	if next != "" {
		request = request.Param("continue", next)
	}
	return request
}

// typed writes the kind into an item, where the API server leaves it out: those of the kinds that are built in.
func typed(item json.RawMessage, kind kube.Kind, version string) []byte {
	rest, ok := bytes.CutPrefix(item, []byte("{"))
	if !ok || strings.Contains(kind.GVK.Group, ".istio.io") || kind.GVK.Group == "gateway.networking.k8s.io" {
		return item
	}
	head := fmt.Sprintf(`{"apiVersion":%q,"kind":%q`, strings.TrimPrefix(kind.GVK.Group+"/"+version, "/"), kind.GVK.Kind)
	if len(bytes.TrimSpace(rest)) > 1 {
		head += ","
	}
	return append([]byte(head), rest...)
}
