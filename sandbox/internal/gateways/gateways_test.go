package gateways_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/gateways"
)

var update = flag.Bool("update", false, "write the golden files")

func gateway(t *testing.T, text string) *gatewayv1.Gateway {
	t.Helper()
	gw := &gatewayv1.Gateway{}
	if err := yaml.UnmarshalStrict([]byte(text), gw); err != nil {
		t.Fatal(err)
	}
	gw.UID = "f3b1"
	return gw
}

const waypoint = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: waypoint
  namespace: default
  labels: {istio.io/waypoint-for: service}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE}
`

const ingress = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: bookinfo-gateway
  namespace: shop
  labels: {not: copied}
spec:
  gatewayClassName: istio
  infrastructure:
    labels: {team: books}
    annotations: {owner: "somebody"}
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}
  - {name: http-too, port: 80, protocol: HTTP, hostname: other.example.org}
  - {name: Secure.Web, port: 443, protocol: HTTPS}
`

const parameters = `spec:
  replicas: 2
  template:
    spec:
      nodeSelector: {kubernetes.io/hostname: node-1}
      containers:
      - name: istio-proxy
        resources: {limits: {cpu: "4"}}
        env:
        - {name: TRUST_DOMAIN, value: example.org}
        - {name: MORE, value: "1"}
`

func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		gateway    string
		controller gatewayv1.GatewayController
		custom     map[string]string
	}{
		"waypoint":   {waypoint, "istio.io/mesh-controller", nil},
		"ingress":    {ingress, "istio.io/gateway-controller", nil},
		"parameters": {waypoint, "istio.io/mesh-controller", map[string]string{"deployment": parameters, "service": "metadata: {labels: {a: b, istio.io/waypoint-for: null}}", "horizontalPodAutoscaler": "spec: {}"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := gateways.Render(gateway(t, c.gateway), c.controller, c.custom)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, o := range []any{got.ServiceAccount, got.Service, got.Deployment} {
				data, err := yaml.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				text.WriteString("---\n")
				text.Write(data)
			}
			path := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if text.String() != string(want) {
				t.Errorf("differs from %s (go test -update writes it):\n%s", path, text.String())
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	for want, c := range map[string]struct {
		gateway string
		custom  map[string]string
	}{
		"too long":                {strings.Replace(waypoint, "name: waypoint", "name: "+strings.Repeat("w", 64), 1), nil},
		"service-type":            {strings.Replace(waypoint, "annotations: {", "annotations: {networking.istio.io/service-type: Public, ", 1), nil},
		"15021":                   {strings.Replace(waypoint, "port: 15008", "port: 15021", 1), nil},
		`"replicaSet" is none of`: {waypoint, map[string]string{"replicaSet": "spec: {}"}},
		"metadata.name cannot":    {waypoint, map[string]string{"service": "metadata: {name: other}"}},
		`unknown field "replica"`: {waypoint, map[string]string{"deployment": "spec: {replica: 3}"}},
	} {
		if _, err := gateways.Render(gateway(t, c.gateway), "istio.io/mesh-controller", c.custom); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if _, err := gateways.Render(gateway(t, waypoint), "example.org/other", nil); err == nil {
		t.Error("somebody else's Gateway was rendered")
	}
}

func TestManaged(t *testing.T) {
	for addresses, want := range map[string]bool{
		"": true, "- {value: 10.96.7.7}": true, "- {type: IPAddress, value: 10.96.7.7}": true,
		"- {type: Hostname, value: other.istio-system.svc.cluster.local}": false,
		"- {value: 10.96.7.7}\n  - {value: 10.96.7.8}":                    false,
	} {
		text := waypoint
		if addresses != "" {
			text += "  addresses:\n  " + addresses + "\n"
		}
		if got := gateways.Managed(gateway(t, text)); got != want {
			t.Errorf("%q: %t", addresses, got)
		}
	}
}

func summary(s gatewayv1.GatewayStatus) string {
	var parts []string
	for _, a := range s.Addresses {
		parts = append(parts, string(*a.Type)+"="+a.Value)
	}
	for _, c := range s.Conditions {
		parts = append(parts, c.Type+"="+string(c.Status)+":"+c.Reason)
	}
	return strings.Join(parts, " ")
}

func TestStatus(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	gw := gateway(t, waypoint)
	const controller = "istio.io/mesh-controller"
	objects, err := gateways.Render(gw, controller, nil)
	if err != nil {
		t.Fatal(err)
	}
	step := func(want string, state gateways.State) {
		t.Helper()
		gw.Status = gateways.Status(gw, controller, state, now)
		if got := summary(gw.Status); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		now = now.Add(time.Hour)
	}
	service := objects.Service.DeepCopy()
	step("Accepted=True:Accepted Programmed=False:AddressNotAssigned", gateways.State{Service: service})
	service.Spec.ClusterIP, service.Spec.ClusterIPs = "10.96.0.40", []string{"10.96.0.40"}
	step("Accepted=True:Accepted Programmed=False:NoResources", gateways.State{Service: service})
	const known = "IPAddress=10.96.0.40 Hostname=waypoint.default.svc.cluster.local "
	step(known+"Accepted=True:Accepted Programmed=True:Programmed", gateways.State{Service: service, Ready: 1})
	since := gw.Status.Conditions[1].LastTransitionTime
	step(known+"Accepted=True:Accepted Programmed=True:Programmed", gateways.State{Service: service, Ready: 2})
	if at := gw.Status.Conditions[1].LastTransitionTime; !at.Equal(&since) {
		t.Errorf("nothing has changed, but the time has, from %v to %v", since, at)
	}
	if at := gw.Status.Conditions[0].LastTransitionTime; at.After(time.Unix(1_700_000_001, 0)) {
		t.Errorf("Accepted since %v", at)
	}
	// Whoever is bound to it is not let past it while it is down.
	step(known+"Accepted=True:Accepted Programmed=False:NoResources", gateways.State{Service: service})
	step("Accepted=True:Accepted Programmed=False:AddressNotAssigned", gateways.State{})
	gw.Status.Conditions = append(gw.Status.Conditions, metav1.Condition{Type: "Z", Status: "True", Reason: "Others"})
	step("Accepted=False:InvalidParameters Programmed=False:Invalid Z=True:Others", gateways.State{Problem: os.ErrInvalid})
}
