package deploy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy/deploytest"
)

var update = flag.Bool("update", false, "write the golden files")

const parameters = `spec:
  replicas: 2
  template:
    spec:
      terminationGracePeriodSeconds: 7
      nodeSelector: {kubernetes.io/hostname: node-1}
      containers:
      - name: istio-proxy
        resources: {limits: {cpu: "4"}}
        env:
        - {name: TRUST_DOMAIN, value: example.org}
        - {name: MORE, value: "1"}
        ports:
        - {containerPort: 15090, name: renamed}
`

const chartValues = `{
  "revision": "", "unknown": {"field": 1},
  "global": {
    "hub": "registry.example.org/mesh", "tag": 1.5, "imagePullPolicy": "IfNotPresent", "imagePullSecrets": ["one", {"name": "two"}],
    "network": "west", "logAsJson": true, "logging": {"level": "default:debug"},
    "proxy": {"image": "proxyv2", "logLevel": "info", "componentLogLevel": "misc:error", "clusterDomain": "example.local"},
    "waypoint": {"resources": {"requests": {"cpu": "1"}}, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}
  },
  "gatewayClasses": {
    "istio-waypoint": {
      "horizontalPodAutoscaler": {"spec": {"maxReplicas": 4, "minReplicas": 2}},
      "podDisruptionBudget": {"spec": {"minAvailable": 1}},
      "deployment": "metadata: {annotations: {of: class}}"
    },
    "istio": {"service": {"spec": {"type": "NodePort"}}}
  }
}`

func TestGolden(t *testing.T) {
	fromChart, err := deploy.Values{
		Revision: "canary", Discovery: deploy.Discovery("canary", "mesh-system"), TrustDomain: "td.example.org", ClusterID: "c1", ProxyConfig: json.RawMessage(`{"proxyMetadata":{"C":"d"}}`),
	}.WithChart([]byte(chartValues))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]deploy.Request{
		"waypoint": {Gateway: deploytest.Gateway(t, deploytest.Waypoint), Controller: deploy.ControllerWaypoint},
		"ingress":  {Gateway: deploytest.Gateway(t, strings.Replace(deploytest.Ingress, "  infrastructure:", "  addresses: [{value: 192.0.2.9}]\n  infrastructure:", 1)), Controller: deploy.ControllerGateway, Values: deploy.Values{ProxyConfig: json.RawMessage(`{"proxyMetadata":{"C":"d"}}`)}},
		"parameters": {Gateway: deploytest.Gateway(t, deploytest.Waypoint), Controller: deploy.ControllerWaypoint, Parameters: map[string]string{
			"deployment": parameters, "service": "metadata: {labels: {a: b, istio.io/waypoint-for: null}}", "horizontalPodAutoscaler": "spec: {}",
		}},
		"chart": {Gateway: deploytest.Gateway(t, deploytest.Waypoint), Controller: deploy.ControllerWaypoint, Values: fromChart, Parameters: map[string]string{
			"horizontalPodAutoscaler": "spec: {maxReplicas: 9}",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := deploy.Render(in)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, o := range got.All() {
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
		"metadata.name":                {strings.Replace(deploytest.Waypoint, "name: waypoint", "name: "+strings.Repeat("w", 64), 1), nil},
		"name-override":                {strings.Replace(deploytest.Waypoint, "annotations: {", "annotations: {gateway.istio.io/name-override: "+strings.Repeat("w", 64)+", ", 1), nil},
		"service-type":                 {strings.Replace(deploytest.Waypoint, "annotations: {", "annotations: {networking.istio.io/service-type: Public, ", 1), nil},
		"proxy.istio.io/config":        {strings.Replace(deploytest.Waypoint, "annotations: {", "annotations: {proxy.istio.io/config: 'a: [', ", 1), nil},
		"15021":                        {strings.Replace(deploytest.Waypoint, "port: 15008", "port: 15021", 1), nil},
		`"replicaSet" is none of`:      {deploytest.Waypoint, map[string]string{"replicaSet": "spec: {}"}},
		"metadata.name cannot":         {deploytest.Waypoint, map[string]string{"service": "metadata: {name: other}"}},
		`unknown field "spec.replica"`: {deploytest.Waypoint, map[string]string{"deployment": "spec: {replica: 3}"}},
		"not an object":                {deploytest.Waypoint, map[string]string{"deployment": "3"}},
	} {
		_, err := deploy.Render(deploy.Request{Gateway: deploytest.Gateway(t, c.gateway), Controller: deploy.ControllerWaypoint, Parameters: c.custom})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if _, err := deploy.Render(deploy.Request{Gateway: deploytest.Gateway(t, deploytest.Waypoint), Controller: "example.org/other"}); err == nil {
		t.Error("somebody else's Gateway was rendered")
	}
	for _, text := range []string{"{", `{"global": 3}`, `{"global": {"imagePullSecrets": [3]}}`} {
		if _, err := (deploy.Values{}).WithChart([]byte(text)); err == nil || !strings.Contains(err.Error(), "values of the chart") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Whatever a ListenerSet calls its listeners, the ports of the Gateway's own keep their names, and every name is there once.
func TestPortsOfListenerSets(t *testing.T) {
	gw := deploytest.Gateway(t, deploytest.Ingress)
	added := []gatewayv1.Listener{
		{Name: "again", Port: 80, Protocol: gatewayv1.HTTPProtocolType},
		{Name: "http", Port: 8080, Protocol: gatewayv1.HTTPProtocolType},
		{Name: "port-8082", Port: 8081, Protocol: gatewayv1.HTTPProtocolType},
		{Name: "status-port", Port: 8082, Protocol: gatewayv1.HTTPSProtocolType},
		{Name: "A.b", Port: 9000, Protocol: gatewayv1.TCPProtocolType},
		{Name: "udp", Port: 9001, Protocol: gatewayv1.UDPProtocolType},
		{Name: "metrics", Port: 15021, Protocol: gatewayv1.HTTPProtocolType},
	}
	objects, err := deploy.Render(deploy.Request{Gateway: gw, Listeners: added, Controller: deploy.ControllerGateway})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range objects.Service.Spec.Ports {
		got = append(got, fmt.Sprintf("%s=%d/%s", p.Name, p.Port, *p.AppProtocol))
	}
	const want = "status-port=15021/tcp http=80/http secure-web=443/https port-8080=8080/http port-8082=8081/http port-8082-2=8082/https a-b=9000/tcp"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestManaged(t *testing.T) {
	for addresses, want := range map[string]bool{
		"": true, "- {value: 10.96.7.7}": true, "- {type: IPAddress, value: 10.96.7.7}": true,
		"- {type: Hostname, value: other.istio-system.svc.cluster.local}": false,
		"- {value: 10.96.7.7}\n  - {value: 10.96.7.8}":                    false,
	} {
		text := deploytest.Waypoint
		if addresses != "" {
			text += "  addresses:\n  " + addresses + "\n"
		}
		if got := deploy.Managed(deploytest.Gateway(t, text)); got != want {
			t.Errorf("%q: %t", addresses, got)
		}
	}
}

func TestRevision(t *testing.T) {
	tags := map[string]string{"prod": "1-30", "default": "1-30", "next": "canary"}
	for _, c := range []struct {
		named, own string
		tags       map[string]string
		want       bool
	}{
		{"", "", nil, true},
		{"", "default", nil, true},
		{"default", "", nil, true},
		{"canary", "default", nil, false},
		{"canary", "canary", nil, true},
		{"", "canary", nil, false},
		{"default", "canary", nil, false},
		{"prod", "1-30", nil, false},
		{"prod", "1-30", tags, true},
		{"prod", "canary", tags, false},
		{"prod", "", tags, false},
		{"next", "canary", tags, true},
		{"canary", "canary", tags, true},
		{"", "1-30", tags, true},
		{"", "", tags, false},
		{"default", "default", tags, false},
	} {
		if got := deploy.IsOfRevision(map[string]string{deploy.LabelRevision: c.named}, c.own, c.tags); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	objects, err := deploy.Render(deploy.Request{Gateway: deploytest.Gateway(t, deploytest.Waypoint), Controller: deploy.ControllerWaypoint})
	if err != nil {
		t.Fatal(err)
	}
	list := func(gw *gatewayv1.Gateway, controller gatewayv1.GatewayController) string {
		var out []string
		for _, a := range deploy.Addresses(gw, controller, objects.Service, "cluster.local") {
			out = append(out, string(*a.Type)+"="+a.Value)
		}
		return strings.Join(out, " ")
	}
	way, in := deploytest.Gateway(t, deploytest.Waypoint), deploytest.Gateway(t, deploytest.Ingress)
	const hostname = "Hostname=waypoint.default.svc.cluster.local"
	if got := list(way, deploy.ControllerWaypoint); got != "" {
		t.Errorf("without an address yet: %s", got)
	}
	objects.Service.Spec.ClusterIPs = []string{"10.96.0.4", "fd00::4"}
	for want, gw := range map[string]*gatewayv1.Gateway{
		"IPAddress=10.96.0.4 IPAddress=fd00::4 " + hostname: way,
		hostname: in,
	} {
		controller := gatewayv1.GatewayController(deploy.ControllerWaypoint)
		if gw == in {
			controller = deploy.ControllerGateway
		}
		if got := list(gw, controller); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	in.Annotations = map[string]string{"networking.istio.io/address-type": "IPAddress"}
	if got := list(in, deploy.ControllerGateway); got != "IPAddress=10.96.0.4 IPAddress=fd00::4" {
		t.Errorf("by address: %s", got)
	}
	objects.Service.Spec.Type = "LoadBalancer"
	if got := list(in, deploy.ControllerGateway); got != "" {
		t.Errorf("without a load balancer yet: %s", got)
	}
	if err := yaml.Unmarshal([]byte("loadBalancer: {ingress: [{ip: 192.0.2.9}, {hostname: lb.example.org}]}"), &objects.Service.Status); err != nil {
		t.Fatal(err)
	}
	if got := list(in, deploy.ControllerGateway); got != "IPAddress=192.0.2.9 Hostname=lb.example.org" {
		t.Errorf("of a load balancer: %s", got)
	}
	if got := deploy.Endpoints(objects.Service, "cluster.local"); len(got) != 1 || got[0] != "waypoint.default.svc.cluster.local:15008" {
		t.Errorf("endpoints %v", got)
	}
}

// The API server refuses longer ones.
func TestDescriptions(t *testing.T) {
	for _, c := range deploy.BuiltinClasses() {
		if n := len(*c.Spec.Description); n > 64 {
			t.Errorf("%s: %d bytes", c.Name, n)
		}
	}
}
