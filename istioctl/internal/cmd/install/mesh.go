package install

import (
	"errors"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

// checkMesh returns an error if a control plane would refuse the mesh's configuration that is to be installed: it would go on with the
// one from before, or not start without any.
func checkMesh(what *render.Installation) error {
	var problems []error
	for _, o := range what.Objects() {
		name := o.GetName()
		if o.GetKind() != "ConfigMap" || name != "istio" && !strings.HasPrefix(name, "istio-") {
			continue
		}
		text, found := "", false
		if data, ok := o.Object["data"].(map[string]any); ok {
			text, found = data["mesh"].(string)
		}
		if !found {
			continue
		}
		if _, err := collect.MeshConfig([]byte(text)); err != nil {
			problems = append(problems, fmt.Errorf("ConfigMap %s/%s: %w", o.GetNamespace(), name, err))
		}
	}
	return errors.Join(problems...)
}
