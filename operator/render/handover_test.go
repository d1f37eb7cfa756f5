package render_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// TestHandover: what the node proxies' DaemonSet says of whether open connections survive its updates. Nothing is the proxies' default:
// they do.
func TestHandover(t *testing.T) {
	t.Parallel()
	const value, surge, onDelete = "values.ztunnel.handover.enabled=", "values.ztunnel.updateStrategy.rollingUpdate.maxSurge=0", "values.ztunnel.updateStrategy.type=OnDelete"
	for _, c := range []struct {
		set     []string
		says    string // of ENABLE_HANDOVER
		refused string
	}{
		{set: nil},
		{set: []string{surge}},
		{set: []string{onDelete}},
		{set: []string{value + "true"}, says: "true"},
		{set: []string{value + "false"}, says: "false"},
		{set: []string{value + "false", surge}, says: "false"},
		{set: []string{value + "true", surge}, refused: "maxSurge to 1"},
		{set: []string{value + "true", onDelete}, refused: "maxSurge to 1"},
		{set: []string{value + "perhaps"}, refused: `handover.enabled: "perhaps" is neither true nor false`},
	} {
		what, err := render.Render(operator(t, "", append([]string{"profile=ambient"}, c.set...)...), render.Options{Tag: "1.0", Version: "1.0"})
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%q: %v", c.set, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.set, err)
			continue
		}
		data, err := yaml.Marshal(find(t, what, "DaemonSet/ztunnel").Object)
		if err != nil {
			t.Fatal(err)
		}
		_, after, there := strings.Cut(string(data), "name: ENABLE_HANDOVER\n          value: \"")
		says, _, _ := strings.Cut(after, "\"")
		if there != (c.says != "") || says != c.says {
			t.Errorf("%q: ENABLE_HANDOVER is %q, want %q", c.set, says, c.says)
		}
	}
}
