package render_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// TestRevocation: one setting has the control plane tell what is revoked, and the node proxies ask.
func TestRevocation(t *testing.T) {
	t.Parallel()
	env := func(sets ...string) (istiod, ztunnel string) {
		t.Helper()
		what, err := render.Render(operator(t, "", append([]string{"profile=ambient"}, sets...)...), render.Options{Tag: "1.0", Version: "1.0"})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(container(find(t, what, "Deployment/istiod"))["env"]), fmt.Sprint(container(find(t, what, "DaemonSet/ztunnel"))["env"])
	}
	const on, path = "map[name:PILOT_ENABLE_CA_CRL value:true]", "map[name:CRL_PATH value:"
	if istiod, ztunnel := env(); strings.Contains(istiod, "PILOT_ENABLE_CA_CRL") || strings.Contains(ztunnel, path) {
		t.Error("without the setting there is revocation")
	}
	if istiod, ztunnel := env("values.global.peerCaCrl.enabled=true"); !strings.Contains(istiod, on) || !strings.Contains(ztunnel, path) {
		t.Errorf("istiod has %s, ztunnel %s", istiod, ztunnel)
	}
	istiod, _ := env("values.global.peerCaCrl.enabled=true", "values.pilot.env.PILOT_ENABLE_CA_CRL=false")
	if strings.Contains(istiod, on) || strings.Count(istiod, "PILOT_ENABLE_CA_CRL") != 1 {
		t.Errorf("the environment of the user does not go before: %s", istiod)
	}
}
