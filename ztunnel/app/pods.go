package app

import (
	"context"
	"io"

	"github.com/isthmus-mesh/isthmus/ztunnel/internal/dns"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/inpod"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// starter makes a pod's proxy. It implements inpod.Starter.
type starter struct{ factory *proxy.Factory }

// StartPod implements inpod.Starter.
func (s starter) StartPod(ctx context.Context, pod proxy.Pod) (inpod.Instance, error) {
	instance, err := s.factory.Start(ctx, pod)
	if err != nil {
		return nil, err
	}
	return instance, nil
}

// nameServers starts a DNS server with each pod's proxy. It implements proxy.Companion.
type nameServers struct {
	config dns.Config
}

// StartPod implements proxy.Companion.
func (n nameServers) StartPod(ctx context.Context, pod proxy.Pod, local *proxy.Local) (io.Closer, error) {
	config := n.config
	config.Identify = func(ctx context.Context) *l4.Workload {
		_, w, err := local.Workload(ctx)
		if err != nil {
			return nil
		}
		return w
	}
	server, err := dns.Start(ctx, config, dns.Pod{Namespace: pod.Info.Namespace, Name: pod.Info.Name, ServiceAccount: pod.Info.ServiceAccount}, pod.Net)
	if err != nil {
		return nil, err
	}
	return closer(server.Close), nil
}

// closer makes a function an io.Closer.
type closer func()

// Close implements io.Closer.
func (c closer) Close() error {
	c()
	return nil
}
