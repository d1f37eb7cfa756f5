package validate_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/validate"
)

// run validates a file, and returns what is printed.
func run(t *testing.T, manifest string) (string, error) {
	t.Helper()
	cmd := validate.New(&cli.Globals{})
	var out bytes.Buffer
	cmd.SetIn(strings.NewReader(manifest))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs([]string{"-f", "-"})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

const good = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /a}
    backendRefs: [{name: web, port: 80}]
`

// The values of the Gateway API's kinds are judged as by an API server, and the line is told.
func TestValuesOfTheGatewayAPI(t *testing.T) {
	t.Parallel()
	if out, err := run(t, good); err != nil || !strings.Contains(out, "is valid") {
		t.Errorf("%v: %s", err, out)
	}
	out, err := run(t, strings.Replace(strings.Replace(good, "PathPrefix", "Prefix", 1), "port: 80", "port: 80000", 1))
	if err == nil {
		t.Error("bad values are valid")
	}
	for _, want := range []string{
		`:8: error: HTTPRoute default/r: spec.rules[0].matches[0].path.type: Unsupported value: "Prefix": supported values: "Exact", "PathPrefix", "RegularExpression"`,
		`:9: error: HTTPRoute default/r: spec.rules[0].backendRefs[0].port: Invalid value: 80000: should be less than or equal to 65535`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say\n%s\nbut\n%s", want, out)
		}
	}
}

// What the control plane's own checks have told is not told twice.
func TestOneProblemIsToldOnce(t *testing.T) {
	t.Parallel()
	out, err := run(t, `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e}
spec: {hosts: [], ports: [{number: 80, name: http, protocol: HTTP}]}
`)
	if err == nil || strings.Count(out, "error: ") != 1 {
		t.Errorf("%v: %s", err, out)
	}
}
