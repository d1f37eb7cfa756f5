package xds

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Sink takes configurations, one after the other. It returns when the listeners accept.
type Sink func(ctx context.Context, config *l7.Config) error

const (
	// initialFetch is how long the first configuration waits for what listeners and clusters depend on, once both are known.
	initialFetch = 15 * time.Second
	// grace is how long a route waits for a cluster that is on its way, and a removed cluster for the routes that still lead to it.
	grace = time.Second
	// retry is the pause before listeners that could not be opened are tried again.
	retry = time.Second
)

// Assembler makes one configuration of the four types of resources, as Envoy would: a listener serves only when its routes have
// arrived and a cluster only when its endpoints have; until then the previous version goes on. The first configuration is given
// to the sink as a whole. Beyond Envoy, a route that leads to a cluster which is being warmed waits for it, and a cluster that
// goes away waits for the routes that lead to it, for a moment at most, so that an order of messages never costs a request.
type Assembler struct {
	sink      Sink
	subscribe func(typeURL string, add, remove []string)
	log       *slog.Logger
	now       func() time.Time
	compile   compilers
	check     func(*l7.Listener) error // may be nil
	ctx       context.Context          //nolint:containedctx // ends with Close; the sink's work outlives no Assembler
	cancel    context.CancelFunc
	ready     chan struct{} // closed when the first configuration is in force

	mu        sync.Mutex // guards the rest
	listeners *collection[l7.Listener]
	clusters  *collection[l7.Cluster]
	routes    *collection[l7.Routes]
	endpoints *collection[l7.Endpoints]
	secrets   *collection[l7.Secret]
	// routeRefs are by listeners, secretRefs by listeners and clusters, endpointRefs by clusters, clusterRefs by active routes.
	routeRefs, secretRefs, endpointRefs, clusterRefs *references
	// absent are names that the server answered it does not have.
	absentRoutes, absentEndpoints, absentSecrets map[string]struct{}
	// leaving are clusters that were removed while routes lead to them, and until when they stay; waiting are routes that wait for
	// a cluster.
	leaving map[string]leaver
	waiting map[string]time.Time

	listenersKnown, clustersKnown bool
	started, unset                bool // unset: the sink's last answer was an error
	failure                       error
	config                        *l7.Config
	update                        l7.Update // not yet in config
	timer                         *time.Timer
	closed                        bool
	deadline                      time.Time // of the first configuration
}

// leaver is a removed cluster that still serves.
type leaver struct {
	refs, secrets []string
	until         time.Time
}

// NewAssembler starts with nothing. subscribe is told which routes and endpoints are referred to. Close it in the end.
func NewAssembler(sink Sink, subscribe func(typeURL string, add, remove []string), log *slog.Logger) *Assembler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Assembler{
		sink: sink, subscribe: subscribe, log: log, now: time.Now, ready: make(chan struct{}),
		listeners: newCollection[l7.Listener](), clusters: newCollection[l7.Cluster](),
		routes: newCollection[l7.Routes](), endpoints: newCollection[l7.Endpoints](), secrets: newCollection[l7.Secret](),
		routeRefs: newReferences(), secretRefs: newReferences(), endpointRefs: newReferences(), clusterRefs: newReferences(),
		absentRoutes: map[string]struct{}{}, absentEndpoints: map[string]struct{}{}, absentSecrets: map[string]struct{}{},
		leaving: map[string]leaver{}, waiting: map[string]time.Time{},
		config:  l7.NewConfig(),
		compile: compilers{l7.CompileListener, l7.CompileCluster, l7.CompileRoutes, l7.CompileEndpoints, l7.CompileSecret},
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.update = newUpdate()
	return a
}

func newUpdate() l7.Update {
	return l7.Update{
		Listeners: map[string]*l7.Listener{}, Routes: map[string]*l7.Routes{},
		Clusters: map[string]*l7.Cluster{}, Endpoints: map[string]*l7.Endpoints{}, Secrets: map[string]*l7.Secret{},
	}
}

// Ready is closed when the first complete configuration is in force, its listeners are open and none of them was refused.
func (a *Assembler) Ready() <-chan struct{} { return a.ready }

// Failure is why the last configuration is not wholly in force, or nil.
func (a *Assembler) Failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure
}

// Config is the configuration in force.
func (a *Assembler) Config() *l7.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

// Close ends the waits. Nothing is given to the sink any more.
func (a *Assembler) Close() {
	a.cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
}

// settleLocked follows the references, promotes what no longer waits and publishes. Every change ends with it.
func (a *Assembler) settleLocked() {
	a.settleClustersLocked()
	a.settleRoutesLocked()
	a.settleListenersLocked()
	a.dropClustersLocked()
	a.followLocked()
	a.publishLocked()
	a.readyLocked()
	a.scheduleLocked()
}

// settleClustersLocked promotes clusters whose endpoints have arrived.
func (a *Assembler) settleClustersLocked() {
	for name := range a.clusters.warming {
		i := a.clusters.items[name]
		if !known(a.endpoints, a.absentEndpoints, i.warming.refs) {
			continue
		}
		if i.active != nil {
			a.clusterRefersLocked(i.active.refs, i.active.secrets, -1)
		}
		i.promote()
		delete(a.clusters.warming, name)
		a.update.Clusters[name] = i.active.table
	}
}

// known is whether each of the names serves, or is known not to come.
func known[T any](c *collection[T], absent map[string]struct{}, names []string) bool {
	for _, name := range names {
		if i := c.items[name]; i != nil && i.active != nil {
			continue
		}
		if _, ok := absent[name]; !ok {
			return false
		}
	}
	return true
}

// settleRoutesLocked promotes routes whose clusters are there, or that have waited long enough.
func (a *Assembler) settleRoutesLocked() {
	for name := range a.routes.warming {
		i := a.routes.items[name]
		if a.awaitsClusterLocked(i.warming) && a.waitsLocked(name) {
			continue
		}
		delete(a.waiting, name)
		delete(a.routes.warming, name)
		if i.active != nil {
			a.clusterRefs.add(i.active.refs, -1)
		}
		i.promote()
		a.clusterRefs.add(i.active.refs, 1)
		a.update.Routes[name] = i.active.table
	}
}

// waitsLocked is whether the time that a route may wait is not over.
func (a *Assembler) waitsLocked(name string) bool {
	until, ok := a.waiting[name]
	if !ok {
		until = a.now().Add(grace)
		a.waiting[name] = until
	}
	return a.now().Before(until)
}

// awaitsClusterLocked is whether a route leads to a cluster that will be there soon.
func (a *Assembler) awaitsClusterLocked(v *compiled[l7.Routes]) bool {
	if !a.started || len(a.clusters.warming) == 0 {
		return false
	}
	for _, name := range v.refs {
		if _, warming := a.clusters.warming[name]; warming && a.clusters.items[name].active == nil {
			return true
		}
	}
	return false
}

// settleListenersLocked promotes listeners whose routes and secrets have arrived. One that replaces another does not wait without end,
// as with Envoy: it has the policies of all its services, and those must not be held up by the routes of one. Nor does any for
// secrets: the chains that need them then refuse connections, the others serve.
func (a *Assembler) settleListenersLocked() {
	for name := range a.listeners.warming {
		i := a.listeners.items[name]
		late := !a.now().Before(i.since.Add(initialFetch))
		if !known(a.routes, a.absentRoutes, i.warming.refs) && (i.active == nil || !late) || !known(a.secrets, a.absentSecrets, i.warming.secrets) && !late {
			continue
		}
		if i.active != nil {
			a.refersLocked(i.active, -1)
		}
		i.promote()
		delete(a.listeners.warming, name)
		a.update.Listeners[name] = i.active.table
	}
}

// dropClustersLocked lets go of removed clusters that no route leads to, or whose time is over.
func (a *Assembler) dropClustersLocked() {
	for name, l := range a.leaving {
		if a.clusterRefs.count[name] > 0 && a.now().Before(l.until) {
			continue
		}
		delete(a.leaving, name)
		a.clusterRefersLocked(l.refs, l.secrets, -1)
		a.update.Clusters[name] = nil
	}
	a.clusterRefs.settle() // nobody subscribes by them
}

// followLocked subscribes to what is referred to and forgets what is not.
func (a *Assembler) followLocked() {
	wanted, unwanted := a.endpointRefs.settle()
	for _, name := range unwanted {
		a.endpoints.remove(name)
		delete(a.absentEndpoints, name)
		a.update.Endpoints[name] = nil
	}
	if len(wanted)+len(unwanted) > 0 {
		a.subscribe(EndpointType, wanted, unwanted)
	}
	wanted, unwanted = a.routeRefs.settle()
	for _, name := range unwanted {
		if i := a.routes.items[name]; i != nil && i.active != nil {
			a.clusterRefs.add(i.active.refs, -1)
		}
		a.routes.remove(name)
		delete(a.absentRoutes, name)
		delete(a.waiting, name)
		a.update.Routes[name] = nil
	}
	if len(wanted)+len(unwanted) > 0 {
		a.subscribe(RouteType, wanted, unwanted)
	}
	wanted, unwanted = a.secretRefs.settle()
	for _, name := range unwanted {
		a.secrets.remove(name)
		delete(a.absentSecrets, name)
		a.update.Secrets[name] = nil
	}
	if len(wanted)+len(unwanted) > 0 {
		a.subscribe(SecretType, wanted, unwanted)
	}
}

// publishLocked gives what changed to the sink.
func (a *Assembler) publishLocked() {
	if a.closed || !a.startLocked() {
		return
	}
	u := a.update
	changed := len(u.Listeners)+len(u.Routes)+len(u.Clusters)+len(u.Endpoints)+len(u.Secrets) > 0
	if !changed && !a.unset {
		return
	}
	if changed {
		a.config = a.config.With(u)
		a.update = newUpdate()
	}
	before := a.failure
	a.failure = a.sink(a.ctx, a.config)
	a.unset = a.failure != nil
	if a.failure != nil && (before == nil || before.Error() != a.failure.Error()) { // it is tried again every second
		a.log.Error("the configuration is not wholly in force", "error", a.failure)
	}
}

// readyLocked announces the first configuration: when it is in force, and no listener of it was refused, since who is sent here
// would find no one.
func (a *Assembler) readyLocked() {
	select {
	case <-a.ready:
		return
	default:
	}
	if !a.started || a.unset {
		return
	}
	for _, i := range a.listeners.items {
		if i.active == nil && i.failure != nil {
			return
		}
	}
	close(a.ready)
}

// startLocked is whether configurations are published: from when nothing of the first one is missing.
func (a *Assembler) startLocked() bool {
	if a.started || !a.listenersKnown || !a.clustersKnown {
		return a.started
	}
	if a.deadline.IsZero() {
		a.deadline = a.now().Add(initialFetch)
	}
	switch missing := len(a.listeners.warming) + len(a.clusters.warming); {
	case missing > 0 && a.now().Before(a.deadline):
	case missing > 0:
		a.started, a.unset = true, true
		a.log.Warn("the control plane did not send all that listeners and clusters refer to; serving without",
			"listeners", len(a.listeners.warming), "clusters", len(a.clusters.warming))
	default:
		a.started, a.unset = true, true
		a.log.Info("configuration complete", "listeners", len(a.listeners.items), "clusters", len(a.clusters.items),
			"routes", len(a.routes.items), "endpoints", len(a.endpoints.items))
	}
	return a.started
}

// scheduleLocked comes back when a wait is over.
func (a *Assembler) scheduleLocked() {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	if a.closed {
		return
	}
	pause := time.Duration(0)
	switch {
	case !a.started && a.listenersKnown && a.clustersKnown:
		pause = a.deadline.Sub(a.now())
	case a.unset && a.started:
		pause = retry
	case len(a.leaving)+len(a.waiting) > 0:
		pause = grace
	case a.started && len(a.listeners.warming) > 0:
		pause = initialFetch
	default:
		return
	}
	a.timer = time.AfterFunc(pause, a.wake)
}

// wake ends waits whose time is over.
func (a *Assembler) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.settleLocked()
	}
}
