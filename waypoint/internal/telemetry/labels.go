package telemetry

import (
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// unknown is the value of a label that nothing is known for.
const unknown = "unknown"

// Self is the proxy itself. A gateway reports as the source of what it sends; a waypoint reports for both sides.
type Self struct {
	Gateway bool
	// Of a gateway: what the source labels say.
	Workload, CanonicalService, CanonicalRevision, Namespace, Principal, App, Version, Cluster string
}

// maxGRPCStatus is the highest status that gRPC knows.
const maxGRPCStatus = 16

// key identifies a combination of labels: everything that they are made of. It is comparable.
type key struct {
	kind                   proxy.Kind
	grpc                   bool
	status, grpcStatus     int
	flags                  l7.Flags
	identity               string
	source                 hbone.Workload
	cluster, chain         string
	workload, hostIdentity string
}

// keyOf aliases the record: clone keeps it.
func keyOf(r *proxy.Record) key {
	k := key{
		kind: r.Kind, grpc: r.GRPC, flags: r.Flags, source: r.Source, cluster: r.ClusterName, hostIdentity: r.UpstreamIdentity,
	}
	if r.Kind == proxy.KindRequest {
		k.status, k.grpcStatus = r.Status, -1
		if r.GRPC && r.GRPCStatus <= maxGRPCStatus { // applications write what they like there
			k.grpcStatus = r.GRPCStatus
		}
	}
	if r.Conn != nil {
		k.identity = r.Conn.Identity
	}
	if r.Cluster == nil && r.Chain != nil {
		k.chain = r.Chain.Name
	}
	if r.Cluster == nil && r.Chain == nil {
		k.cluster = "" // a name that somebody made up
	}
	if r.Endpoint != nil {
		k.workload = r.Endpoint.Workload
		if k.hostIdentity == "" {
			k.hostIdentity = r.Endpoint.Identity
		}
	}
	return k
}

func (k key) clone() key {
	for _, s := range []*string{
		&k.identity, &k.cluster, &k.chain, &k.workload, &k.hostIdentity,
		&k.source.Cluster, &k.source.Namespace, &k.source.WorkloadType, &k.source.WorkloadName,
		&k.source.Service, &k.source.Version, &k.source.Region, &k.source.Zone,
	} {
		*s = strings.Clone(*s)
	}
	return k
}

// side is one end of a request.
type side struct{ workload, service, revision, namespace, principal, app, version, cluster string }

func (s side) values() []string {
	out := []string{s.workload, s.service, s.revision, s.namespace, s.principal, s.app, s.version, s.cluster}
	for i := range out {
		out[i] = known(out[i])
	}
	return out
}

func known(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

// values are in the order of labelNames, and for requests of httpNames.
func (s *Self) values(k key, cluster *l7.Cluster) []string {
	reporter, security := "waypoint", unknown
	source := sourceOf(k)
	switch {
	case s.Gateway:
		reporter = "source"
		source = side{s.Workload, s.CanonicalService, s.CanonicalRevision, s.Namespace, s.Principal, s.App, s.Version, s.Cluster}
		if k.hostIdentity == "" {
			source.principal = ""
		}
	case k.identity != "":
		security = "mutual_tls"
	}
	out := append([]string{reporter}, source.values()...)
	out = append(out, destinationOf(k).values()...)
	service := serviceOf(k, cluster)
	out = append(out, known(service.Host), known(service.Name), known(service.Namespace))
	protocol := "http"
	switch {
	case k.kind != proxy.KindRequest:
		protocol = "tcp"
	case k.grpc:
		protocol = "grpc"
	}
	out = append(out, protocol, k.flags.String(), security)
	if k.kind == proxy.KindRequest {
		grpcStatus := ""
		if k.grpc && k.grpcStatus >= 0 {
			grpcStatus = strconv.Itoa(k.grpcStatus)
		}
		out = append(out, strconv.Itoa(k.status), grpcStatus)
	}
	return out
}

// sourceOf is who the client is: what its proxy says, and what its certificate proves where that says more.
func sourceOf(k key) side {
	s := side{
		workload: k.source.WorkloadName, service: k.source.Service, revision: k.source.Version, namespace: k.source.Namespace,
		principal: k.identity, app: k.source.Service, version: k.source.Version, cluster: k.source.Cluster,
	}
	if id, err := spiffe.Parse(k.identity); err == nil {
		s.namespace = id.Namespace // proven, whatever the proxy says
	}
	return s
}

// destinationOf reads "name;namespace;canonical name;revision;cluster" of the endpoint.
func destinationOf(k key) side {
	s := side{principal: k.hostIdentity}
	fields := strings.Split(k.workload, ";")
	for i, to := range [][]*string{{&s.workload}, {&s.namespace}, {&s.service, &s.app}, {&s.revision, &s.version}, {&s.cluster}} {
		for _, field := range to {
			if i < len(fields) {
				*field = fields[i]
			}
		}
	}
	return s
}

// serviceOf is whose request it is: of the cluster, or, when none was chosen, of the chain or of the cluster's name.
func serviceOf(k key, cluster *l7.Cluster) l7.Service {
	if cluster != nil && len(cluster.Services) > 0 {
		return cluster.Services[0]
	}
	host := hostIn(k.cluster)
	if host == "" {
		host = hostIn(k.chain)
	}
	service := l7.Service{Host: host}
	// NAME.NAMESPACE.svc.DOMAIN
	if parts := strings.SplitN(host, ".", 4); len(parts) == 4 && parts[2] == "svc" {
		service.Name, service.Namespace = parts[0], parts[1]
	} else {
		service.Name = host
	}
	return service
}

// hostIn reads the host in "inbound-vip|PORT|SUBSET|HOST", which for a chain ends in "-http" or "-tcp".
func hostIn(name string) string {
	parts := strings.Split(name, "|")
	if len(parts) != 4 {
		return ""
	}
	host := parts[3]
	for _, suffix := range []string{"-http", "-tcp"} {
		if parts[2] == "" && parts[0] == "inbound-vip" {
			host = strings.TrimSuffix(host, suffix)
		}
	}
	return host
}
