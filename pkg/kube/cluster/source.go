package cluster

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Source watches an API server. It implements kube.Source.
type Source struct {
	// immutable
	cfg     Config
	chosen  []kube.Kind // in the order of delivery
	clients *clients
	queue   *queue
	health  *health

	// owned by Run
	kinds      map[schema.GroupVersionKind]*state
	followers  map[schema.GroupVersionKind]*running
	crdsListed bool
	problems   map[schema.GroupVersionKind]kube.ObjectError // of whole kinds
	selection  selection
	synced     bool
	errors     []kube.ObjectError // as last reported
	changed    bool               // errors may differ from that
	wait       sync.WaitGroup     // for followers
}

// running is a follower and how to end it.
type running struct {
	*follower
	stop    context.CancelFunc
	settled bool // it was listed, or cannot be
}

// New checks the configuration; it does not connect.
func New(cfg Config) (*Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	chosen, err := cfg.chosen()
	if err != nil {
		return nil, err
	}
	clients, err := newClients(cfg.REST)
	if err != nil {
		return nil, err
	}
	s := &Source{
		cfg: cfg, chosen: chosen, clients: clients, queue: newQueue(), health: newHealth(cfg.Log), kinds: map[schema.GroupVersionKind]*state{},
		followers: map[schema.GroupVersionKind]*running{}, problems: map[schema.GroupVersionKind]kube.ObjectError{},
	}
	s.selection.choose = cfg.Selectors
	for _, k := range chosen {
		s.kinds[k.GVK] = newState()
	}
	return s, nil
}

// Refresh makes the source read the selectors of namespaces again. It may be called at any time from any goroutine.
func (s *Source) Refresh() { s.queue.add(event{refresh: true}) }

// Run implements kube.Source. It is called once, and does not fail: an API server that does not answer is waited for.
func (s *Source) Run(ctx context.Context, sink kube.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wait.Wait()
	defer cancel()
	s.startAll(ctx)
	for {
		s.deliver(sink)
		select {
		case <-ctx.Done():
			return nil
		case <-s.queue.ready:
		}
		for _, e := range s.queue.take() {
			s.handle(ctx, e)
		}
	}
}

// startAll follows the kinds that are always served, and CRDs when the others are wanted.
func (s *Source) startAll(ctx context.Context) {
	s.selection.read()
	s.crdsListed = true
	for _, k := range s.chosen {
		if isCustom(k.GVK) {
			s.crdsListed = false
			continue
		}
		s.start(ctx, k)
	}
	if _, wanted := s.kinds[kube.NamespaceGVK()]; !wanted && s.selection.choose != nil {
		i := slices.IndexFunc(kube.Kinds(), func(k kube.Kind) bool { return k.GVK == kube.NamespaceGVK() })
		s.start(ctx, kube.Kinds()[i])
	}
	if !s.crdsListed {
		f := s.newFollower(crdKind())
		s.wait.Go(func() { f.followCRDs(ctx) })
	}
}

func (s *Source) newFollower(k kube.Kind) *follower {
	return &follower{
		kind: k, custom: isCustom(k.GVK), node: s.cfg.Node, clients: s.clients, queue: s.queue, health: s.health, metrics: s.cfg.Metrics, reduce: s.cfg.Reduce, changed: make(chan struct{}, 1),
	}
}

func (s *Source) start(ctx context.Context, k kube.Kind) {
	ctx, stop := context.WithCancel(ctx)
	r := &running{follower: s.newFollower(k), stop: stop}
	s.followers[k.GVK] = r
	s.wait.Go(func() { r.run(ctx) })
}

// handle takes one event into the state.
func (s *Source) handle(ctx context.Context, e event) {
	switch {
	case e.refresh:
		s.selection.read()
		s.reselect()
	case e.presentAll != nil:
		s.crdsListed = true
		for _, k := range s.chosen {
			s.crd(ctx, k, e.presentAll[crdName(k)])
		}
	case e.present != "" || e.absent != "":
		for _, k := range s.chosen {
			if crdName(k) == cmp.Or(e.present, e.absent) {
				s.crd(ctx, k, e.present != "")
			}
		}
	case e.kind == crdKind().GVK:
		s.problem(e.kind, e.failed)
	case s.followers[e.kind] != nil:
		s.handleKind(e)
	}
	// What is left are events of a follower that was stopped.
}

// crd starts or stops a kind as its CRD comes and goes.
func (s *Source) crd(ctx context.Context, k kube.Kind, present bool) {
	r := s.followers[k.GVK]
	switch {
	case !isCustom(k.GVK):
	case present && r == nil:
		s.start(ctx, k)
	case present:
		select {
		case r.changed <- struct{}{}:
		default:
		}
	case r != nil:
		r.stop()
		delete(s.followers, k.GVK)
		s.problem(k.GVK, nil)
		s.changed = s.kinds[k.GVK].replace(nil, s.selection.has) || s.changed
	}
}

func (s *Source) handleKind(e event) {
	if e.kind == kube.NamespaceGVK() {
		s.namespaces(e)
	}
	r, st := s.followers[e.kind], s.kinds[e.kind]
	if st == nil {
		// Namespaces that are only read to select.
		if e.replace != nil || e.failed != nil {
			s.problem(e.kind, e.failed)
			r.settled = e.replace != nil
		}
		return
	}
	switch {
	case e.put != nil:
		s.changed = st.put(*e.put, s.selection.has) || s.changed
	case e.remove != nil:
		s.changed = st.remove(*e.remove) || s.changed
	case e.replace != nil:
		s.changed = st.replace(*e.replace, s.selection.has) || s.changed
		s.problem(e.kind, nil)
		r.settled = true
	case e.settled != nil:
		s.problem(e.kind, e.settled)
		r.settled = true
	case e.failed != nil:
		s.problem(e.kind, e.failed)
	}
}

// problem sets what is wrong with a kind as a whole; nil is nothing.
func (s *Source) problem(kind schema.GroupVersionKind, p *kube.ObjectError) {
	_, had := s.problems[kind]
	if p == nil {
		delete(s.problems, kind)
	} else {
		s.problems[kind] = *p
	}
	s.changed = s.changed || had || p != nil
}

// namespaces keeps the labels that selectors are about.
func (s *Source) namespaces(e event) {
	changed := false
	switch {
	case e.put != nil:
		changed = s.selection.put(e.put.object)
	case e.remove != nil:
		changed = s.selection.remove(e.remove.Name)
	case e.replace != nil:
		changed = s.selection.replace(*e.replace)
	}
	if changed {
		s.reselect()
	}
}

// reselect delivers and takes back the objects of namespaces that are selected now and were not, or the other way round.
func (s *Source) reselect() {
	s.changed = true // errors are of selected namespaces only
	for _, st := range s.kinds {
		st.reselect(s.selection.has)
	}
}

// deliver hands over what changed. Errors come first: whoever sees the new state finds what is wrong with it.
func (s *Source) deliver(sink kube.Sink) {
	s.report()
	applied := false
	for _, k := range s.chosen {
		upserts, deletes, added := s.kinds[k.GVK].take()
		if len(upserts)+len(deletes) == 0 {
			continue
		}
		applied = true
		s.count(k.GVK, len(upserts), len(deletes), added)
		sink.Apply(k.GVK, upserts, deletes)
	}
	if flusher, ok := sink.(kube.Flusher); ok && applied {
		flusher.Flush()
	}
	if !s.synced && s.settled() {
		s.synced = true
		sink.Synced()
	}
}

// settled reports whether all kinds that exist were listed.
func (s *Source) settled() bool {
	for _, r := range s.followers {
		if !r.settled {
			return false
		}
	}
	return s.crdsListed
}

func (s *Source) count(kind schema.GroupVersionKind, upserts, deletes, added int) {
	count := s.cfg.Metrics.Event
	if count == nil {
		return
	}
	for i := range upserts {
		if i < added {
			count(kind, "add")
		} else {
			count(kind, "update")
		}
	}
	for range deletes {
		count(kind, "delete")
	}
}

// report publishes what is wrong, if that changed.
func (s *Source) report() {
	if !s.changed {
		return
	}
	s.changed = false
	var all []kube.ObjectError
	for _, p := range s.problems {
		all = append(all, p)
	}
	for _, st := range s.kinds {
		for name, errs := range st.errors {
			if s.selection.has(name.Namespace) {
				all = append(all, errs...)
			}
		}
	}
	slices.SortFunc(all, func(a, b kube.ObjectError) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	if slices.Equal(all, s.errors) {
		return
	}
	s.errors = all
	if s.cfg.OnError != nil {
		s.cfg.OnError(slices.Clone(all))
	}
}

var _ kube.Source = (*Source)(nil)
