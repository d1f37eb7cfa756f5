package install

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

func TestMeshConfigIsCheckedBeforeItIsInstalled(t *testing.T) {
	for _, c := range []struct{ name, mesh, want string }{
		{"good", "accessLogFile: /dev/stdout\n    defaultConfig: {holdApplicationUntilProxyStarts: true}\n    connectTimeout: 1m30s", ""},
		{"of another release", "fieldOfTomorrow: 1", ""},
		{"wrong type", "enableTracing: perhaps", "meshConfig.enableTracing"},
		{"wrong enumeration", "outboundTrafficPolicy: {mode: ALLOW_SOME}", `meshConfig.outboundTrafficPolicy.mode: "ALLOW_SOME" is not one of REGISTRY_ONLY, ALLOW_ANY`},
		{"wrong duration", "connectTimeout: soon", "soon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			op, err := iop.Read([]iop.File{{Name: "mesh.yaml", Data: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  profile: ambient\n  meshConfig:\n    " + c.mesh + "\n")}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			what, err := render.Render(op, render.Options{Version: "1.0", Hub: "hub", Tag: "tag"})
			if err != nil {
				t.Fatal(err)
			}
			err = checkMesh(what)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "ConfigMap istio-system/istio: read the mesh configuration: meshConfig.")):
				t.Errorf("error %v, want one about %s", err, c.want)
			}
		})
	}
}
