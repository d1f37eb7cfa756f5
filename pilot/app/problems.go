package app

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// problems are what is wrong with the configuration at present.
type problems struct {
	log *slog.Logger

	mu      sync.Mutex
	objects []kube.ObjectError // guarded by mu
	mesh    error              // guarded by mu: of the latest mesh configuration
}

func newProblems(log *slog.Logger) *problems { return &problems{log: log} }

// setObjects takes all that is wrong with objects, and logs what was not wrong before.
func (p *problems) setObjects(errs []kube.ObjectError) {
	p.mu.Lock()
	known := make(map[kube.ObjectError]bool, len(p.objects))
	for _, e := range p.objects {
		known[e] = true
	}
	p.objects = errs
	p.mu.Unlock()
	for _, e := range errs {
		switch {
		case known[e]:
		case e.Warning:
			p.log.Warn(e.Error())
		default:
			p.log.Error(e.Error())
		}
	}
}

// setMesh takes what is wrong with the mesh configuration; nil is nothing.
func (p *problems) setMesh(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mesh = err
}

// Objects are those that are not in force, and why.
func (p *problems) Objects() []kube.ObjectError {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.objects)
}

// problemsOfAll are all of them, by object: those of objects as they are, and of what becomes of them.
func (p *plane) problemsOfAll() map[string][]string {
	out := p.registry.Problems()
	p.problems.mu.Lock()
	defer p.problems.mu.Unlock()
	add := func(key, text string) {
		if !slices.Contains(out[key], text) {
			out[key] = append(slices.Clone(out[key]), text)
		}
	}
	for _, e := range p.problems.objects {
		text := e.Reason
		if e.Field != "" {
			text = e.Field + ": " + text
		}
		name := strings.TrimPrefix(e.Namespace+"/"+e.Name, "/")
		add(strings.TrimSpace(cmp.Or(e.Kind, e.File, "?")+" "+name), text)
	}
	if p.problems.mesh != nil {
		add("MeshConfig", p.problems.mesh.Error())
	}
	for _, key := range slices.Collect(maps.Keys(out)) {
		slices.Sort(out[key])
	}
	return out
}
