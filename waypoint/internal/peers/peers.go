// Package peers says who the two ends of a record are, as far as telemetry is concerned: what a client's proxy says of it and its
// certificate proves, and what the control plane says of a host.
package peers

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
)

// Peer is one end; what is not known is empty.
type Peer struct{ Workload, Kind, Namespace, Cluster, Service, Revision, App, Version, Identity string }

// Downstream is who asked.
func Downstream(r *proxy.Record) Peer {
	p := Peer{
		Workload: r.Source.WorkloadName, Kind: r.Source.WorkloadType, Namespace: r.Source.Namespace, Cluster: r.Source.Cluster,
		Service: r.Source.Service, Revision: r.Source.Version, App: r.Source.Service, Version: r.Source.Version,
	}
	if r.Conn != nil {
		p.Identity = r.Conn.Identity
	}
	if id, err := spiffe.Parse(p.Identity); err == nil {
		p.Namespace = id.Namespace // proven, whatever the proxy says
	}
	return p
}

// Upstream is who was asked: "name;namespace;canonical name;revision;cluster" of the endpoint.
func Upstream(r *proxy.Record) Peer {
	p := Peer{Identity: r.UpstreamIdentity}
	if r.Endpoint == nil {
		return p
	}
	if p.Identity == "" {
		p.Identity = r.Endpoint.Identity
	}
	rest := r.Endpoint.Workload
	for _, to := range []*string{&p.Workload, &p.Namespace, &p.Service, &p.Revision, &p.Cluster} {
		*to, rest, _ = strings.Cut(rest, ";")
	}
	p.App, p.Version = p.Service, p.Revision
	return p
}

// Fields are the names that Field knows.
func Fields() []string {
	return []string{"app", "cluster", "identity", "namespace", "revision", "service", "type", "version", "workload"}
}

// Field is a value by Istio's name of it; "" for what there is not.
func (p Peer) Field(name string) string {
	switch name {
	case "workload":
		return p.Workload
	case "type":
		return p.Kind
	case "namespace":
		return p.Namespace
	case "cluster":
		return p.Cluster
	case "service":
		return p.Service
	case "revision":
		return p.Revision
	case "app":
		return p.App
	case "version":
		return p.Version
	case "identity":
		return p.Identity
	}
	return ""
}
