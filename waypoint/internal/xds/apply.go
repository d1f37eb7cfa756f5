package xds

import (
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// The types that are subscribed to.
const (
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// handler makes a function a client.Handler.
type handler func(updated []client.Resource, removed []string) []client.Rejected

// Apply implements client.Handler.
func (h handler) Apply(updated []client.Resource, removed []string) []client.Rejected {
	return h(updated, removed)
}

// Watches are the subscriptions that feed the Assembler, in Envoy's order: clusters before listeners.
func (a *Assembler) Watches() []client.Watch {
	return []client.Watch{
		{TypeURL: ClusterType, Handler: handler(a.applyClusters)},
		{TypeURL: EndpointType, Handler: handler(a.applyEndpoints), Named: true},
		{TypeURL: ListenerType, Handler: handler(a.applyListeners)},
		{TypeURL: RouteType, Handler: handler(a.applyRoutes), Named: true},
		{TypeURL: SecretType, Handler: handler(a.applySecrets), Named: true},
	}
}

// compilers make tables.
type compilers struct {
	listener  func(*listenerv3.Listener) (*l7.Listener, error)
	cluster   func(*clusterv3.Cluster) (*l7.Cluster, error)
	routes    func(*routev3.RouteConfiguration) (*l7.Routes, error)
	endpoints func(*endpointv3.ClusterLoadAssignment) (*l7.Endpoints, error)
	secrets   func(*tlsv3.Secret) (*l7.Secret, error)
}

func (a *Assembler) compileListener(p *listenerv3.Listener) (*l7.Listener, error) {
	l, err := a.compile.listener(p)
	if err == nil && a.check != nil {
		err = a.check(l)
	}
	return l, err
}

// read compiles a resource. A version that does not compile changes nothing but the failure that is shown.
func read[T any, M proto.Message](a *Assembler, c *collection[T], r client.Resource, message M, compile func(M) (*T, error), name func(M) string) (*compiled[T], error) {
	revision := Revision{Version: r.Version, Content: r.Any, Updated: a.now()}
	table, err := (*T)(nil), proto.Unmarshal(r.Any.GetValue(), message)
	if err == nil && name(message) != r.Name {
		err = fmt.Errorf("the resource is named %q inside", name(message))
	}
	if err == nil {
		table, err = compile(message)
	}
	i := c.of(r.Name)
	if err != nil {
		c.rejected++
		i.failure = &Failure{Revision: revision, Details: err.Error()}
		return nil, err
	}
	c.success++
	i.failure = nil
	return &compiled[T]{Revision: revision, table: table}, nil
}

func (a *Assembler) applyListeners(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range updated {
		next, err := read(a, a.listeners, r, &listenerv3.Listener{}, a.compileListener, (*listenerv3.Listener).GetName)
		if err != nil {
			rejected = append(rejected, client.Rejected{Name: r.Name, Reason: err.Error()})
			continue
		}
		next.refs, next.secrets = routeNames(next.table), secretNames(next.table)
		a.refersLocked(next, 1)
		if old := a.listeners.await(r.Name, next); old != nil {
			a.refersLocked(old, -1)
		}
	}
	for _, name := range removed {
		active, warming := a.listeners.remove(name)
		if active != nil {
			a.refersLocked(active, -1)
			a.update.Listeners[name] = nil
		}
		if warming != nil {
			a.refersLocked(warming, -1)
		}
	}
	a.listenersKnown = true
	a.settleLocked()
	return rejected
}

func (a *Assembler) applyClusters(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range updated {
		next, err := read(a, a.clusters, r, &clusterv3.Cluster{}, a.compile.cluster, (*clusterv3.Cluster).GetName)
		if err != nil {
			rejected = append(rejected, client.Rejected{Name: r.Name, Reason: err.Error()})
			continue
		}
		if next.table.Discovery == l7.DiscoveryEDS {
			next.refs = []string{next.table.EDSName}
		}
		next.secrets = next.table.SecretNames()
		a.clusterRefersLocked(next.refs, next.secrets, 1)
		if old := a.clusters.await(r.Name, next); old != nil {
			a.clusterRefersLocked(old.refs, old.secrets, -1)
		}
		if l, ok := a.leaving[r.Name]; ok { // it is back
			delete(a.leaving, r.Name)
			a.clusterRefersLocked(l.refs, l.secrets, -1)
		}
	}
	for _, name := range removed {
		active, warming := a.clusters.remove(name)
		if active != nil {
			a.leaving[name] = leaver{active.refs, active.secrets, a.now().Add(grace)}
		}
		if warming != nil {
			a.clusterRefersLocked(warming.refs, warming.secrets, -1)
		}
	}
	a.clustersKnown = true
	a.settleLocked()
	return rejected
}

// applyRoutes: one that was refused is not waited for, as with Envoy: the listener serves, and that route answers 404.
func (a *Assembler) applyRoutes(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range updated {
		if a.routeRefs.count[r.Name] == 0 {
			continue // nothing refers to it any more
		}
		message := &routev3.RouteConfiguration{}
		next, err := read(a, a.routes, r, message, a.compile.routes, (*routev3.RouteConfiguration).GetName)
		if err != nil {
			rejected = append(rejected, client.Rejected{Name: r.Name, Reason: err.Error()})
			a.absentRoutes[r.Name] = struct{}{}
			continue
		}
		next.refs = clusterNames(message)
		a.routes.await(r.Name, next)
		delete(a.absentRoutes, r.Name)
		delete(a.waiting, r.Name)
	}
	note(a.absentRoutes, removed, a.routeRefs.count)
	a.settleLocked()
	return rejected
}

func (a *Assembler) applyEndpoints(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range updated {
		if a.endpointRefs.count[r.Name] == 0 {
			continue
		}
		next, err := read(a, a.endpoints, r, &endpointv3.ClusterLoadAssignment{}, a.compile.endpoints, (*endpointv3.ClusterLoadAssignment).GetClusterName)
		if err != nil {
			rejected = append(rejected, client.Rejected{Name: r.Name, Reason: err.Error()})
			a.absentEndpoints[r.Name] = struct{}{}
			continue
		}
		a.endpoints.of(r.Name).active = next // endpoints depend on nothing
		delete(a.absentEndpoints, r.Name)
		a.update.Endpoints[r.Name] = next.table
	}
	note(a.absentEndpoints, removed, a.endpointRefs.count)
	a.settleLocked()
	return rejected
}

// note makes absent what was removed and is still referred to. What of it serves goes on, as with Envoy; what was waited for is not
// coming.
func note(absent map[string]struct{}, removed []string, referred map[string]int) {
	for _, name := range removed {
		if referred[name] > 0 {
			absent[name] = struct{}{}
		}
	}
}

// clusterRefersLocked counts what a cluster depends on. It does not wait for secrets: without them it makes no connection.
func (a *Assembler) clusterRefersLocked(endpoints, secrets []string, by int) {
	a.endpointRefs.add(endpoints, by)
	a.secretRefs.add(secrets, by)
}

// refersLocked counts what a listener depends on.
func (a *Assembler) refersLocked(l *compiled[l7.Listener], by int) {
	a.routeRefs.add(l.refs, by)
	a.secretRefs.add(l.secrets, by)
}

// applySecrets: what was refused, or is gone, changes nothing for handshakes while there is a version before it. The content is kept
// nowhere but in the table.
func (a *Assembler) applySecrets(updated []client.Resource, removed []string) (rejected []client.Rejected) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range updated {
		if a.secretRefs.count[r.Name] == 0 {
			continue
		}
		next, err := read(a, a.secrets, r, &tlsv3.Secret{}, a.compile.secrets, (*tlsv3.Secret).GetName)
		if i := a.secrets.items[r.Name]; i != nil && i.failure != nil {
			i.failure.Content = nil
		}
		if err != nil {
			rejected = append(rejected, client.Rejected{Name: r.Name, Reason: err.Error()})
			a.absentSecrets[r.Name] = struct{}{}
			continue
		}
		next.Content = nil
		a.secrets.of(r.Name).active = next // secrets depend on nothing
		delete(a.absentSecrets, r.Name)
		a.update.Secrets[r.Name] = next.table
	}
	note(a.absentSecrets, removed, a.secretRefs.count)
	a.settleLocked()
	return rejected
}

// secretNames are the secrets that a listener takes by SDS.
func secretNames(l *l7.Listener) []string {
	var names []string
	for _, ch := range l.Chains {
		names = append(names, ch.TLS.SecretNames()...)
	}
	if l.Default != nil {
		names = append(names, l.Default.TLS.SecretNames()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// routeNames are the route configurations that a listener takes by RDS.
func routeNames(l *l7.Listener) []string {
	var names []string
	add := func(ch *l7.Chain) {
		if ch != nil && ch.HTTP != nil && ch.HTTP.Inline == nil && ch.HTTP.RouteConfig != "" {
			names = append(names, ch.HTTP.RouteConfig)
		}
	}
	for _, ch := range l.Chains {
		add(ch)
	}
	add(l.Default)
	return names
}

// clusterNames are the clusters that the routes of a configuration lead to.
func clusterNames(config *routev3.RouteConfiguration) []string {
	var names []string
	for _, host := range config.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			action := route.GetRoute()
			if name := action.GetCluster(); name != "" {
				names = append(names, name)
			}
			for _, weighted := range action.GetWeightedClusters().GetClusters() {
				names = append(names, weighted.GetName())
			}
		}
	}
	return names
}
