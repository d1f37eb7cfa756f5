package registry

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	networkingapi "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// credentials is what gateways present and trust, and who may have it. Where there is an API server, Secrets are read one by one, as
// Gateways name them, and it is asked who may read them: a Lookup has brought the answers. Otherwise all are among the files.
type credentials struct {
	secrets  *coll.Static[*corev1.Secret]
	maps     *coll.Static[*corev1.ConfigMap]
	roles    *coll.Static[*rbacv1.Role]
	bindings *coll.Static[*rbacv1.RoleBinding]

	// byLookup is whether answers are brought: what nobody has looked up yet is then not known to be missing.
	byLookup bool
	lookups  *coll.Static[Lookup]
	readers  *coll.Static[Reader]

	rolesOf         coll.Index[*rbacv1.Role, string]
	bindingsOf      coll.Index[*rbacv1.RoleBinding, string]
	gatewayAccounts coll.Index[*ambient.Pod, string] // pods by the Gateway that they carry the name of

	client        coll.Collection[clientCredential]
	clientByScope coll.Index[clientCredential, string]

	scopes *coll.Static[secretScope]
	served coll.Collection[servedSecrets]
	named  coll.Collection[namedCredentials]
}

// Lookup is what came of reading an object.
type Lookup struct {
	credential.Source
	// Problem is why it could not be read; empty when it was, or is not there.
	Problem string
	// Data is nil when it is not there.
	Data map[string][]byte
}

// Read is the right of a service account to read a Secret of its own namespace.
type Read struct{ Namespace, Account, Secret string }

// Key is namespace/account/secret.
func (r Read) Key() string { return r.Namespace + "/" + r.Account + "/" + r.Secret }

// Reader is the answer to whether there is that right.
type Reader struct {
	Read
	May     bool
	Problem string // why nobody could say; then it may not
}

// servedSecrets is what the proxies of a scope are given.
type servedSecrets struct {
	scope     string
	complete  bool // nothing of it has to be looked up first
	resources []scoped
	// broken are the names of those whose objects are there, and may be had, but are wrong: what was served of them before goes on.
	broken   []string
	objects  []credential.Source
	reads    []Read
	problems []route.Problem
}

// namedCredentials are the objects that an object of the Gateway API names, whoever is connected.
type namedCredentials struct {
	key     string // kind/namespace/name
	objects []credential.Source
}

func newNamed(kind string, o kube.Object, refs []credential.Reference) (namedCredentials, bool) {
	n := namedCredentials{key: kind + "/" + objectKey(o)}
	for _, ref := range refs {
		n.objects = append(n.objects, sourcesOf(ref)...)
	}
	return n, len(n.objects) > 0
}

func (r *Registry) newCredentials(byLookup bool) {
	r.credentials = credentials{
		secrets: source[*corev1.Secret](r, "", "Secret"), maps: source[*corev1.ConfigMap](r, "", "ConfigMap"),
		roles: source[*rbacv1.Role](r, rbacv1.GroupName, "Role"), bindings: source[*rbacv1.RoleBinding](r, rbacv1.GroupName, "RoleBinding"),
		byLookup: byLookup,
		lookups:  coll.NewStatic(r.graph, "credentials/lookups", func(l Lookup) string { return l.Key() }),
		readers:  coll.NewStatic(r.graph, "credentials/readers", func(a Reader) string { return a.Key() }),
		scopes:   coll.NewStatic(r.graph, "credentials/scopes", func(s secretScope) string { return s.key }),
	}
	r.credentials.lookups.MarkSynced()
	r.credentials.readers.MarkSynced()
	r.credentials.scopes.MarkSynced()
}

// deriveCredentials comes after the servers of gateways.
func (r *Registry) deriveCredentials() {
	c := &r.credentials
	c.served = coll.Map("credentials", c.scopes, func(s servedSecrets) string { return s.scope }, func(f coll.Fetch, s secretScope) (servedSecrets, bool) {
		return r.serveSecrets(f, s), true
	}, coll.WithEqual(sameSecrets))
	key := func(n namedCredentials) string { return n.key }
	same := coll.WithEqual(func(a, b namedCredentials) bool { return slices.Equal(a.objects, b.objects) })
	gateways := coll.Map("credentials/gateways", r.gateways, key, func(f coll.Fetch, gw *gatewayv1.Gateway) (namedCredentials, bool) {
		return newNamed("Gateway", gw, gateway.GatewayCredentials(r.view(f), gw))
	}, same)
	policies := coll.Map("credentials/backends", r.routing.backendTLS, key, func(_ coll.Fetch, p *gatewayv1.BackendTLSPolicy) (namedCredentials, bool) {
		return newNamed(gateway.KindBackendTLSPolicy, p, gateway.BackendTLSCredentials(p))
	}, same)
	c.named = coll.Join("credentials/named", gateways, policies)
}

func sameSecrets(a, b servedSecrets) bool {
	return a.complete == b.complete && slices.EqualFunc(a.resources, b.resources, sameScoped) && slices.Equal(a.broken, b.broken) && slices.Equal(a.objects, b.objects) &&
		slices.Equal(a.reads, b.reads) && slices.Equal(a.problems, b.problems)
}

// serveSecrets decides what a scope is given. Whatever other scopes have, or have asked for, makes no difference.
func (r *Registry) serveSecrets(f coll.Fetch, s secretScope) servedSecrets {
	out := servedSecrets{scope: s.key, complete: true}
	if s.key == nobodysSecrets {
		return out
	}
	seen := map[string]bool{}
	for _, c := range coll.FetchIndex(f, r.credentials.clientByScope, s.of.key) {
		for _, name := range c.names {
			if !seen[name] {
				seen[name] = true
				r.serveSecret(f, s, c.origin, name, &out)
			}
		}
	}
	servers, ok := coll.FetchOne(f, r.proxies.gateways, s.of.key)
	if !ok && s.of.kind == routerScope {
		out.complete = false
		return out
	}
	for _, server := range servers.servers {
		for _, chain := range server.Chains {
			for _, name := range chainCredentials(chain.TLS) {
				if seen[name] {
					continue
				}
				seen[name] = true
				r.serveSecret(f, s, chain.Origin, name, &out)
			}
		}
	}
	slices.SortFunc(out.resources, func(a, b scoped) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func chainCredentials(t *networkingapi.ServerTLSSettings) []string {
	names, authority := credential.Names(t)
	if authority != "" {
		names = append(names, authority)
	}
	return names
}

func (r *Registry) serveSecret(f coll.Fetch, s secretScope, origin route.Origin, name string, out *servedSecrets) {
	problem := func(err error) {
		out.problems = append(out.problems, route.Problem{Origin: origin, Field: "credentialName", Message: err.Error(), Missing: true})
	}
	ref, err := credential.Parse(name, s.of.namespace)
	if err != nil {
		problem(err)
		return
	}
	out.objects = append(out.objects, sourcesOf(ref)...)
	secret, source, err := r.secretOf(f, ref)
	wrong := errors.Is(err, errBroken)
	// What a BackendTLSPolicy names is for everybody who connects to its target: it has no key.
	if (err == nil || wrong) && origin.Kind != gateway.KindBackendTLSPolicy {
		if refused := r.mayHave(f, s, ref, source, out); refused != nil {
			err, wrong = refused, false
		}
	}
	switch {
	case wrong:
		out.broken = append(out.broken, name)
		problem(err)
	case errors.Is(err, credential.ErrPending):
		out.complete = false
	case err != nil:
		problem(err)
	default:
		out.resources = append(out.resources, encodeScoped(s.key, SecretType, name, secret))
	}
}

// mayHave decides whether the service account of a scope may be given a credential that is in an object.
func (r *Registry) mayHave(f coll.Fetch, s secretScope, ref credential.Reference, in credential.Source, out *servedSecrets) error {
	if !ref.Verified {
		if in.Namespace != s.of.namespace || in.Kind != credential.Secret {
			return fmt.Errorf("%s is not in the namespace of the proxy's pods, which is %s", in, s.of.namespace)
		}
		return r.mayRead(f, Read{s.of.namespace, s.account, in.Name}, out)
	}
	key := s.of.namespace + "/" + s.of.gateway
	for _, p := range coll.FetchIndex(f, r.credentials.gatewayAccounts, key) {
		if p.Account == s.account {
			return nil
		}
	}
	return fmt.Errorf("no pod of the Gateway %s has the service account %s: %s is not given to it", key, s.account, in)
}

// mayRead asks the Roles among the objects, or who has asked the API server.
func (r *Registry) mayRead(f coll.Fetch, read Read, out *servedSecrets) error {
	refused := fmt.Errorf("the service account %s of the proxy's pods may not read Secret %s/%s: it needs a Role that allows it to", read.Account, read.Namespace, read.Secret)
	answer := Reader{}
	if r.credentials.byLookup {
		out.reads = append(out.reads, read)
		var known bool
		if answer, known = coll.FetchOne(f, r.credentials.readers, read.Key()); !known {
			return credential.ErrPending
		}
	} else {
		roles, bindings := coll.FetchIndex(f, r.credentials.rolesOf, read.Namespace), coll.FetchIndex(f, r.credentials.bindingsOf, read.Namespace)
		answer.May = credential.MayRead(roles, bindings, read.Namespace, read.Account, read.Secret)
	}
	switch {
	case answer.May:
		return nil
	case answer.Problem != "":
		return fmt.Errorf("%w: %s", refused, answer.Problem)
	}
	return refused
}

// sourcesOf are all objects that a credential may be in.
func sourcesOf(ref credential.Reference) (out []credential.Source) {
	for _, source := range ref.Sources() {
		out = append(out, alternatives(source, ref.Authority)...)
	}
	return out
}

// alternatives are the objects that may stand for one, the first one first.
func alternatives(source credential.Source, authority bool) []credential.Source {
	if !authority || source.Kind != credential.Secret {
		return []credential.Source{source}
	}
	own := source
	own.Name = credential.AuthorityName(own.Name)
	return []credential.Source{own, source}
}

// errBroken says that an object is there, but has not what it should.
var errBroken = errors.New("broken credential")

// brokenError is why.
type brokenError struct {
	in  credential.Source
	why error
}

// Error implements error.
func (e *brokenError) Error() string { return e.in.String() + ": " + e.why.Error() }

// Is makes it an errBroken.
func (e *brokenError) Is(target error) bool { return target == errBroken }

// Unwrap returns the cause.
func (e *brokenError) Unwrap() error { return e.why }

// secretOf makes the resource of a credential, and says what it is from: of several objects, the last one.
func (r *Registry) secretOf(f coll.Fetch, ref credential.Reference) (*tlsv3.Secret, credential.Source, error) {
	var all []map[string][]byte
	var from credential.Source
	for _, source := range ref.Sources() {
		data, found, err := r.firstOf(f, alternatives(source, ref.Authority))
		if err != nil {
			return nil, found, err
		}
		all, from = append(all, data), found
	}
	var secret *tlsv3.Secret
	var err error
	if ref.Authority {
		secret, err = credential.Authority(ref.Name, all...)
	} else {
		secret, err = credential.Certificate(ref.Name, all[0])
	}
	if err != nil {
		return nil, from, &brokenError{from, err}
	}
	return secret, from, nil
}

// firstOf reads the first of the objects that is there.
func (r *Registry) firstOf(f coll.Fetch, sources []credential.Source) (map[string][]byte, credential.Source, error) {
	for _, source := range sources {
		data, err := r.read(f, source)
		if err != nil || data != nil {
			return data, source, err
		}
	}
	last := sources[len(sources)-1]
	return nil, last, fmt.Errorf("there is no %s", last)
}

// read returns what is in an object; nil without an error when it is not there.
func (r *Registry) read(f coll.Fetch, s credential.Source) (map[string][]byte, error) {
	key := s.Namespace + "/" + s.Name
	switch {
	case r.credentials.byLookup:
		l, ok := coll.FetchOne(f, r.credentials.lookups, s.Key())
		switch {
		case !ok:
			return nil, credential.ErrPending
		case l.Problem != "":
			return nil, fmt.Errorf("%s cannot be read: %s", s, l.Problem)
		}
		return l.Data, nil
	case s.Kind == credential.ConfigMap:
		m, ok := coll.FetchOne(f, r.credentials.maps, key)
		if !ok {
			return nil, nil
		}
		return ConfigMapData(m), nil
	}
	secret, ok := coll.FetchOne(f, r.credentials.secrets, key)
	if !ok {
		return nil, nil
	}
	return SecretData(secret), nil
}

// SecretData is what is in a Secret, as it was written or as the API server has it.
func SecretData(s *corev1.Secret) map[string][]byte {
	out := maps.Clone(s.Data)
	if out == nil {
		out = map[string][]byte{}
	}
	for k, v := range s.StringData {
		out[k] = []byte(v)
	}
	return out
}

// ConfigMapData is what is in a ConfigMap.
func ConfigMapData(m *corev1.ConfigMap) map[string][]byte {
	out := map[string][]byte{}
	maps.Copy(out, m.BinaryData)
	for k, v := range m.Data {
		out[k] = []byte(v)
	}
	return out
}

// Credential implements gateway.View.
func (v view) Credential(ref credential.Reference) error {
	_, _, err := v.r.secretOf(v.f, ref)
	return err
}

// publishSecrets hands over what scopes have now and every change from now on, until stop is called. A scope serves from when all of
// its credentials have been looked for: without any, too. What is broken keeps what was served of it before.
func (r *Registry) publishSecrets(p Publisher) (stop func()) {
	begun := map[string][]scoped{} // what each scope serves; owned by the subscriber
	return r.credentials.served.Register(func(events []coll.Event[servedSecrets]) {
		for _, e := range events {
			if e.New == nil {
				delete(begun, e.Key)
				continue
			}
			old, serves := begun[e.Key]
			if !e.New.complete && !serves {
				continue
			}
			u := server.Update{TypeURL: SecretType}
			now := slices.Clone(e.New.resources)
			for _, n := range now {
				if !slices.ContainsFunc(old, func(o scoped) bool { return o.Name == n.Name && sameScoped(o, n) }) {
					u.Changed = append(u.Changed, n.Resource)
				}
			}
			for _, o := range old {
				switch {
				case slices.ContainsFunc(now, func(n scoped) bool { return o.Name == n.Name }):
				case slices.Contains(e.New.broken, o.Name):
					now = append(now, o)
				default:
					u.Removed = append(u.Removed, o.Name)
				}
			}
			begun[e.Key] = now
			p.PublishScope(e.Key, u)
		}
	})
}

// Wanted is what has to be looked up for credentials.
type Wanted struct {
	Objects map[credential.Source]struct{}
	Reads   map[Read]struct{}
}

// FollowCredentials calls changed with all that is to be looked up, now and whenever that changes, until stop is called. changed must
// be quick, and must not call back.
func (r *Registry) FollowCredentials(changed func(Wanted)) (stop func()) {
	served, named := map[string]servedSecrets{}, map[string]namedCredentials{} // guarded by the graph
	tell := func() {
		w := Wanted{Objects: map[credential.Source]struct{}{}, Reads: map[Read]struct{}{}}
		for _, s := range served {
			for _, o := range s.objects {
				w.Objects[o] = struct{}{}
			}
			for _, read := range s.reads {
				w.Reads[read] = struct{}{}
			}
		}
		for _, n := range named {
			for _, o := range n.objects {
				w.Objects[o] = struct{}{}
			}
		}
		changed(w)
	}
	stopServed := r.credentials.served.Register(func(events []coll.Event[servedSecrets]) { follow(served, events); tell() })
	stopNamed := r.credentials.named.Register(func(events []coll.Event[namedCredentials]) { follow(named, events); tell() })
	return func() { stopServed(); stopNamed() }
}

func follow[T any](all map[string]T, events []coll.Event[T]) {
	for _, e := range events {
		delete(all, e.Key)
		if e.New != nil {
			all[e.Key] = *e.New
		}
	}
}

// SetLookups brings what came of reading objects, and forgets what is not wanted any more.
func (r *Registry) SetLookups(found []Lookup, forget ...credential.Source) {
	keys := make([]string, 0, len(forget))
	for _, s := range forget {
		keys = append(keys, s.Key())
	}
	r.credentials.lookups.Apply(found, keys)
}

// SetReaders brings answers about rights, and forgets what is not wanted any more.
func (r *Registry) SetReaders(found []Reader, forget ...Read) {
	keys := make([]string, 0, len(forget))
	for _, a := range forget {
		keys = append(keys, a.Key())
	}
	r.credentials.readers.Apply(found, keys)
}
