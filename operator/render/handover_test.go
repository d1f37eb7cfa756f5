package render_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// TestHandover: the node proxies' DaemonSet when open connections are to survive its updates.
func TestHandover(t *testing.T) {
	t.Parallel()
	what, err := render.Render(operator(t, "", "profile=ambient", "values.ztunnel.handover.enabled=true"), render.Options{Tag: "1.0", Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	u := find(t, what, "DaemonSet/ztunnel")
	data, err := yaml.Marshal(u.Object)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "daemonset-ztunnel-handover.yaml", data)
	for _, without := range []string{"values.ztunnel.updateStrategy.rollingUpdate.maxSurge=0", "values.ztunnel.updateStrategy.type=OnDelete"} {
		_, err := render.Render(operator(t, "", "profile=ambient", "values.ztunnel.handover.enabled=true", without), render.Options{Tag: "1.0"})
		if err == nil || !strings.Contains(err.Error(), "maxSurge to 1") {
			t.Errorf("%s: %v", without, err)
		}
	}
}
