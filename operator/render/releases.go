package render

import (
	"errors"

	"github.com/isthmus-mesh/isthmus/operator/iop"
)

// Release is a component as a release of Helm.
type Release struct {
	Name, Chart, Namespace string
	Values                 map[string]any
	// Lost are the settings that values of the chart do not cover.
	Lost []string
}

// Releases returns the releases of Helm that install the same as an installation.
func Releases(op *iop.Operator, o Options) ([]Release, error) {
	r, err := newRenderer(op, o)
	if err != nil {
		return nil, err
	}
	if problems := r.check(); len(problems) > 0 && !o.Force {
		return nil, errors.Join(problems...)
	}
	var out []Release
	for _, p := range r.parts() {
		if !p.settings.On() {
			continue
		}
		values, err := r.valuesOf(p)
		if err != nil {
			return nil, err
		}
		release := Release{Name: p.release, Chart: p.chart, Namespace: p.namespace, Values: values}
		if p.settings.K8s != nil {
			release.Lost = append(release.Lost, p.path+".k8s")
		}
		out = append(out, release)
	}
	return out, nil
}
