package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// clients make requests for all kinds over one connection. They may be used by several goroutines.
type clients struct {
	config  *rest.Config
	builtin runtime.NegotiatedSerializer
	served  runtime.NegotiatedSerializer
	raw     rest.Interface
	crds    metadata.Interface
}

func newClients(config *rest.Config) (*clients, error) {
	config = rest.CopyConfig(config)
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	// A watch lives longer than any request should.
	config.Timeout = 0
	c := &clients{config: config}
	var err error
	if c.builtin, err = builtinCodecs(); err != nil {
		return nil, err
	}
	c.served = newServedCodecs(c.builtin)
	if c.raw, err = c.of(schema.GroupVersion{}, "v1", false); err != nil {
		return nil, err
	}
	if c.crds, err = metadata.NewForConfig(metadata.ConfigFor(config)); err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return c, nil
}

// of returns the client of a version of a group: for protobuf when it is built in, for JSON when it is custom.
func (c *clients) of(gv schema.GroupVersion, version string, custom bool) (rest.Interface, error) {
	gv.Version = version
	config := rest.CopyConfig(c.config)
	config.GroupVersion = &gv
	config.APIPath = "/apis"
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	if custom {
		config.ContentType, config.AcceptContentTypes, config.NegotiatedSerializer = mediaJSON, mediaJSON, c.served
	} else {
		config.ContentType, config.AcceptContentTypes, config.NegotiatedSerializer = mediaProtobuf, mediaProtobuf+","+mediaJSON, c.builtin
	}
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return client, nil
}

// resources asks what is served in a version of a group.
func (c *clients) resources(ctx context.Context, gv schema.GroupVersion) (*metav1.APIResourceList, error) {
	data, err := c.raw.Get().AbsPath("/apis", gv.Group, gv.Version).SetHeader("Accept", mediaJSON).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	out := &metav1.APIResourceList{}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("decode the resources of %s: %w", gv, err)
	}
	return out, nil
}
