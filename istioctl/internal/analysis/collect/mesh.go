package collect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// atOnce is how many kinds are read at the same time.
const atOnce = 6

// Options say what of a mesh is read.
type Options struct {
	// IstioNamespace is that of the control plane, Revision that whose objects count.
	IstioNamespace, Revision string
	// Progress, which may be nil, is told now and then what is waited for.
	Progress func(what string)
}

// Mesh reads all that the analyzers look at. Kinds that may not be read are noted in the input. When ctx ends before all is read, the
// error says what was waited for.
func Mesh(ctx context.Context, mesh *reach.Mesh, o Options) (analysis.Input, error) {
	in := analysis.Input{Live: true, IstioNamespace: o.IstioNamespace, Unread: map[string]error{}, CRDs: map[string]analysis.CRD{}}
	r := &reading{mesh: mesh, in: &in, options: o, open: map[string]int{}, strip: newStripper()}
	if err := r.kinds(ctx); err != nil {
		return in, err
	}
	if err := r.secrets(ctx); err != nil {
		return in, err
	}
	var err error
	if in.Mesh, err = meshConfigOf(ctx, mesh, o.IstioNamespace, o.Revision); err != nil {
		if !apierrors.IsForbidden(err) {
			return in, err
		}
		in.Unread["ConfigMap"] = err
	}
	return in, r.crds(ctx)
}

// wanted are the kinds that analyzers look at. Secrets are read one by one, those that are named.
func wanted() []kube.Kind {
	return slices.DeleteFunc(kube.Kinds(), func(k kube.Kind) bool {
		switch k.GVK.Kind {
		case "Secret", "ConfigMap", "ReplicaSet", "StatefulSet", "DaemonSet", "EndpointSlice":
			return true
		}
		return false
	})
}

// reading is one reading of a mesh.
type reading struct {
	mesh    *reach.Mesh
	options Options

	mu    sync.Mutex // guards the rest
	in    *analysis.Input
	open  map[string]int // objects so far, by kind that is not read whole
	strip *stripper
}

func (r *reading) kinds(ctx context.Context) error {
	if r.options.Progress != nil {
		stop := r.report(ctx)
		defer stop()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	turns := make(chan struct{}, atOnce)
	var wait sync.WaitGroup
	all := wanted()
	for _, kind := range all {
		r.open[kind.GVK.Kind+" "+kind.GVK.Group] = 0
	}
	for _, kind := range all {
		wait.Go(func() {
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-turns }()
			if err := r.kind(ctx, kind); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	if ctx.Err() == nil {
		return nil
	}
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("reading the mesh took too long; still waiting for %s: raise --timeout, or look at fewer objects with files and --use-kube=false: %w", r.waiting(), context.DeadlineExceeded)
}

// kind reads one kind. One that is not served has no objects; one that may not be read is noted.
func (r *reading) kind(ctx context.Context, kind kube.Kind) error {
	name := kind.GVK.Kind + " " + kind.GVK.Group
	err := r.mesh.Each(ctx, kind, "", func(o kube.Object, errs []kube.ObjectError) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.open[name]++
		r.take(kind, o, errs)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, name)
	switch {
	case errors.Is(err, reach.ErrNotFound):
		return nil
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		r.in.Unread[kind.GVK.Kind] = err
		return nil
	}
	return err
}

// take keeps an object and what is wrong with it. The caller holds the lock.
func (r *reading) take(kind kube.Kind, o kube.Object, errs []kube.ObjectError) {
	ofMesh := ofMesh(kind.GVK.Group)
	if o == nil {
		for _, e := range errs {
			resource := &analysis.Resource{Kind: kind.GVK.Kind, Namespace: e.Namespace, Name: e.Name}
			r.in.Problems = append(r.in.Problems, analysis.Problem{Resource: resource, ObjectError: e})
		}
		return
	}
	if revision := o.GetLabels()[analysis.LabelRevision]; ofMesh && revision != "" && revision != cmp.Or(r.options.Revision, "default") {
		return
	}
	r.strip.strip(o)
	resource := analysis.NewResource(kind.GVK, o)
	r.in.Resources = append(r.in.Resources, resource)
	if !ofMesh {
		return
	}
	for _, e := range append(errs, kube.Admit(o)...) {
		r.in.Problems = append(r.in.Problems, analysis.Problem{Resource: resource, ObjectError: e})
	}
}

// waiting says what is not read whole yet.
func (r *reading) waiting() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for name, n := range r.open {
		text, _, _ := strings.Cut(name, " ")
		if n > 0 {
			text += fmt.Sprintf(" (%d so far)", n)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	const most = 6
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("%d more kinds", len(out)-most))
	}
	return strings.Join(out, ", ")
}

// report tells of the progress, beginning after a second.
func (r *reading) report(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				r.options.Progress("reading " + r.waiting())
			}
		}
	})
	return func() { cancel(); wait.Wait() }
}

// secrets reads those that gateways name as credentials.
func (r *reading) secrets(ctx context.Context) error {
	s := analysis.NewSnapshot(*r.in)
	for _, ref := range Credentials(s) {
		o, err := r.mesh.Read(ctx, reach.Kind{Version: "v1", Name: "Secret", Plural: "secrets"}, ref.Namespace, ref.Name)
		switch {
		case errors.Is(err, reach.ErrNotFound):
			continue
		case apierrors.IsForbidden(err):
			r.in.Unread["Secret"] = err
			return nil
		case err != nil:
			return err
		}
		data, err := json.Marshal(o.Object)
		if err != nil {
			return err
		}
		decoded, _ := kube.DecodeServed(data)
		if secret, ok := decoded.(*corev1.Secret); ok {
			r.in.Resources = append(r.in.Resources, analysis.NewResource(corev1.SchemeGroupVersion.WithKind("Secret"), secret))
		}
	}
	return nil
}

// Reference is the name of a Secret.
type Reference struct{ Namespace, Name string }

// Credentials returns the Secrets that gateways name, as far as the gateways' pods are known.
func Credentials(s *analysis.Snapshot) []Reference {
	seen := map[Reference]bool{}
	var out []Reference
	add := func(namespace, name string) {
		if ref := (Reference{namespace, name}); name != "" && !seen[ref] {
			seen[ref] = true
			out = append(out, ref)
		}
	}
	for _, gw := range analysis.All[*networkingv1.Gateway](s) {
		for _, w := range s.Select("", gw.Spec.GetSelector()) {
			for _, server := range gw.Spec.GetServers() {
				name := server.GetTls().GetCredentialName()
				add(w.Namespace, name)
				add(w.Namespace, strings.TrimSuffix(name, "-cacert"))
			}
		}
	}
	certificates := func(own string, settings *gatewayv1.ListenerTLSConfig) {
		if settings == nil {
			return
		}
		for _, ref := range settings.CertificateRefs {
			namespace := own
			if ref.Namespace != nil {
				namespace = string(*ref.Namespace)
			}
			add(namespace, string(ref.Name))
		}
	}
	for _, gw := range analysis.All[*gatewayv1.Gateway](s) {
		for _, l := range gw.Spec.Listeners {
			certificates(gw.Namespace, l.TLS)
		}
	}
	for _, set := range analysis.All[*gatewayv1.ListenerSet](s) {
		for _, l := range set.Spec.Listeners {
			certificates(set.Namespace, l.TLS)
		}
	}
	return out
}

// crds reads which versions of the Gateway API are served. A place without an API server has all of them.
func (r *reading) crds(ctx context.Context) error {
	const group = "gateway.networking.k8s.io"
	served, err := r.mesh.Served(ctx, group)
	if apierrors.IsForbidden(err) {
		return nil
	}
	for resource, versions := range served {
		r.in.CRDs[resource+"."+group] = analysis.CRD{Served: versions}
	}
	return err
}
