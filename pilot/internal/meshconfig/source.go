package meshconfig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pilot/internal/named"
)

// meshKey is under which a ConfigMap has the configuration.
const meshKey = "mesh"

// Source says where the configuration is.
type Source struct {
	// File counts before the ConfigMap Name; empty is none.
	File string
	// API has the ConfigMaps; nil if there are none.
	API       kubernetes.Interface
	Namespace string
	// Name of the ConfigMap, and of the one that users share between control planes and that it counts before. Empty is none.
	Name, Shared string
	Log          *slog.Logger
}

// ConfigMapName is the one of a revision.
func ConfigMapName(revision string) string {
	if revision == "" || revision == "default" {
		return "istio"
	}
	return "istio-" + revision
}

// Load reads the configuration once. What there is not counts as empty.
func (s Source) Load(ctx context.Context) (Settings, error) {
	shared, err := s.configMap(ctx, s.Shared)
	if err != nil {
		return Settings{}, err
	}
	own, err := s.own(ctx)
	if err != nil {
		return Settings{}, err
	}
	return parse(own.networks, shared.mesh, own.mesh)
}

// content is what a place has.
type content struct{ mesh, networks []byte }

// parse puts the networks into the configuration.
func parse(networks []byte, layers ...[]byte) (Settings, error) {
	settings, err := Parse(layers...)
	if err == nil {
		settings.Networks, err = ParseNetworks(networks)
	}
	if err != nil {
		return Settings{}, err
	}
	return settings, nil
}

func (s Source) own(ctx context.Context) (content, error) {
	if s.File == "" {
		return s.configMap(ctx, s.Name)
	}
	mesh, err := readFile(s.File)
	return content{mesh: mesh}, err
}

func readFile(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the mesh configuration: %w", err)
	}
	return data, nil
}

func (s Source) configMap(ctx context.Context, name string) (content, error) {
	if s.API == nil || name == "" {
		return content{}, nil
	}
	m, err := s.API.CoreV1().ConfigMaps(s.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		s.Log.Warn("there is no ConfigMap with a mesh configuration: the defaults are in force", "namespace", s.Namespace, "name", name)
		return content{}, nil
	}
	if err != nil {
		return content{}, fmt.Errorf("read the mesh configuration from ConfigMap %s/%s: %w", s.Namespace, name, err)
	}
	return contentOf(m), nil
}

func contentOf(m *corev1.ConfigMap) content {
	return content{mesh: []byte(m.Data[meshKey]), networks: []byte(m.Data[networksKey])}
}

// follower puts together what comes from several places.
type follower struct {
	Source
	changed func(Settings)
	problem func(error)

	mu     sync.Mutex // held while changed and problem are called: they are told things in order
	layers [2]layer
	last   string // guarded by mu: the problem that was reported last
	unused string // guarded by mu: the networks that were reported last
}

// layer is what one place says.
type layer struct {
	known bool
	content
	err error
}

const (
	layerShared = iota
	layerOwn
)

// Follow calls changed with every version of the configuration that can be used, and problem with what is wrong with the latest one
// whenever that changes, nil when nothing is; until ctx ends. A ConfigMap that is deleted leaves its last version in force.
func (s Source) Follow(ctx context.Context, changed func(Settings), problem func(error)) error {
	f := &follower{Source: s, changed: changed, problem: problem}
	var runs []func(context.Context) error
	follow := func(place int, name string) {
		if s.API == nil || name == "" {
			f.layers[place].known = true
			return
		}
		runs = append(runs, func(ctx context.Context) error {
			return named.ConfigMap(ctx, s.API, s.Namespace, name, func(m *corev1.ConfigMap) { f.configMap(place, name, m) })
		})
	}
	follow(layerShared, s.Shared)
	if s.File == "" {
		follow(layerOwn, s.Name)
	} else {
		runs = append(runs, func(ctx context.Context) error {
			return watchFile(ctx, s.File, s.Log, func() {
				text, err := readFile(s.File)
				f.set(layerOwn, content{mesh: text}, err)
			})
		})
	}
	return together(ctx, runs)
}

// together runs all until ctx ends or one of them fails.
func together(ctx context.Context, runs []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(runs))
	var group sync.WaitGroup
	for i, run := range runs {
		group.Go(func() {
			if errs[i] = run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (f *follower) configMap(place int, name string, m *corev1.ConfigMap) {
	where := fmt.Sprintf("ConfigMap %s/%s", f.Namespace, name)
	f.mu.Lock()
	known, before := f.layers[place].known, f.layers[place].content
	f.mu.Unlock()
	switch {
	case m == nil && known && len(before.mesh) > 0:
		f.set(place, before, fmt.Errorf("%s is gone: its last version stays in force", where))
	case m == nil:
		f.set(place, content{}, nil)
	case m.Data[meshKey] == "" && len(m.Data) > 0:
		f.set(place, before, fmt.Errorf("%s has no key %q", where, meshKey))
	default:
		f.set(place, contentOf(m), nil)
	}
}

// set takes what a place says, and hands on the whole once all places have said something.
func (f *follower) set(place int, text content, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layers[place] = layer{known: true, content: text, err: err}
	var texts [][]byte
	var wrong []error
	for _, l := range f.layers {
		if !l.known {
			return
		}
		texts, wrong = append(texts, l.mesh), append(wrong, l.err)
	}
	settings, err := parse(f.layers[layerOwn].networks, texts...)
	problem := errors.Join(append(wrong, err)...)
	if errors.Join(wrong...) == nil && err == nil {
		if unused := strings.Join(settings.Networks.Unused, ", "); unused != f.unused {
			if f.unused = unused; unused != "" {
				f.Log.Warn("gateways of meshNetworks are not used: label Gateways with topology.istio.io/network", "networks", unused)
			}
		}
		f.changed(settings)
	}
	said := ""
	if problem != nil {
		said = problem.Error()
	}
	if said == f.last {
		return
	}
	if f.last = said; problem != nil {
		f.Log.Error("the mesh configuration is not usable; the last good one stays in force", "error", problem)
	}
	f.problem(problem)
}
