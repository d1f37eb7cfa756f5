package app

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

const patience = 30 * time.Second

const podsAndService = `apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: web, nodeName: node-1, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.244.1.5, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
`

const policy = `apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: only-front, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/front"]}}]
`

const (
	webUID     = "Kubernetes//Pod/shop/web-1"
	webService = "shop/web.shop.svc.cluster.local"
)

// write puts a file in place as an atomic writer does.
func write(t *testing.T, dir, name, content string) {
	t.Helper()
	tmp := filepath.Join(dir, "."+name+".tmp")
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// start runs a control plane on a directory until the test ends.
func start(t *testing.T, dir string) Addresses {
	t.Helper()
	return startWith(t, dir, func(*Config) {})
}

// startWith is start with another configuration.
func startWith(t *testing.T, dir string, edit func(*Config)) Addresses {
	t.Helper()
	cfg := Default()
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.SecureGRPCAddr, cfg.MonitoringAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.ConfigDir = dir
	cfg.Log = slog.New(slog.DiscardHandler)
	edit(&cfg)
	started := make(chan Addresses, 1)
	cfg.Started = func(a Addresses) { started <- a }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case a := <-started:
		return a
	case err := <-ended:
		ended <- nil
		t.Fatalf("Run: %v", err)
	case <-time.After(patience):
		t.Fatal("the control plane did not start")
	}
	return Addresses{}
}

// client is one raw delta stream.
type client struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func connect(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(func() { cancel(); conn.Close() })
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t, stream}
}

func (c *client) send(r *discovery.DeltaDiscoveryRequest) {
	c.t.Helper()
	r.Node = &corev3.Node{Id: "ztunnel~10.0.0.9~ztunnel-a.istio-system~istio-system.svc.cluster.local"}
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

// next receives a response of the type and acknowledges it.
func (c *client) next(typeURL string) *discovery.DeltaDiscoveryResponse {
	c.t.Helper()
	r, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	if r.GetTypeUrl() != typeURL {
		c.t.Fatalf("response of type %s, want %s", r.GetTypeUrl(), typeURL)
	}
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: r.GetNonce()})
	return r
}

func unmarshal[T proto.Message](t *testing.T, r *discovery.DeltaDiscoveryResponse, name string, into T) T {
	t.Helper()
	for _, res := range r.GetResources() {
		if res.GetName() == name {
			if err := proto.Unmarshal(res.GetResource().GetValue(), into); err != nil {
				t.Fatal(err)
			}
			return into
		}
	}
	t.Fatalf("no resource %q in %v", name, r)
	return into
}

func TestServesADirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", podsAndService)
	addr := start(t, dir)
	c := connect(t, addr.GRPC.String())
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType})
	first := c.next(registry.AddressType)
	pod := unmarshal(t, first, webUID, &workload.Address{}).GetWorkload()
	want := &workload.Workload{
		Uid: webUID, Name: "web-1", Namespace: "shop", Addresses: [][]byte{{10, 244, 1, 5}}, TunnelProtocol: workload.TunnelProtocol_HBONE,
		ServiceAccount: "web", Node: "node-1", CanonicalName: "web", CanonicalRevision: "latest", WorkloadType: workload.WorkloadType_POD,
		WorkloadName: "web-1", ClusterId: "Kubernetes",
		Services: map[string]*workload.PortList{webService: {Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080, AppProtocol: workload.AppProtocol_HTTP11}}}},
	}
	if !proto.Equal(pod, want) {
		t.Errorf("pod\n got %v\nwant %v", pod, want)
	}
	svc := unmarshal(t, first, webService, &workload.Address{}).GetService()
	if len(svc.GetAddresses()) != 1 || svc.GetPorts()[0].GetTargetPort() != 0 || !svc.GetCanonical() {
		t.Errorf("service %v", svc)
	}

	// A policy reaches the client, and only the pod it selects changes.
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AuthorizationType})
	if r := c.next(registry.AuthorizationType); len(r.GetResources()) != 0 {
		t.Errorf("policies before there are any: %v", r)
	}
	write(t, dir, "policy.yaml", policy)
	got := map[string]*discovery.DeltaDiscoveryResponse{}
	for range 2 {
		r, err := c.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		got[r.GetTypeUrl()] = r
	}
	a := unmarshal(t, got[registry.AuthorizationType], "shop/only-front", &security.Authorization{})
	if a.GetScope() != security.Scope_WORKLOAD_SELECTOR || len(a.GetRules()) != 1 {
		t.Errorf("policy %v", a)
	}
	changed := got[registry.AddressType]
	pod = unmarshal(t, changed, webUID, &workload.Address{}).GetWorkload()
	if len(changed.GetResources()) != 1 || len(pod.GetAuthorizationPolicies()) != 1 || pod.GetAuthorizationPolicies()[0] != "shop/only-front" {
		t.Errorf("after the policy: %v", changed)
	}
}

func TestBadFileKeepsTheLastGoodVersion(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", podsAndService)
	addr := start(t, dir)
	c := connect(t, addr.GRPC.String())
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType})
	c.next(registry.AddressType)
	write(t, dir, "web.yaml", strings.Replace(podsAndService, "selector:", "selektor:", 1)+"---\n"+strings.ReplaceAll(podsAndService[:strings.Index(podsAndService, "---")], "web-1", "web-2"))
	r := c.next(registry.AddressType)
	if len(r.GetResources()) != 1 || len(r.GetRemovedResources()) != 0 {
		t.Errorf("after the bad service: %v", r)
	}
	unmarshal(t, r, "Kubernetes//Pod/shop/web-2", &workload.Address{})
	for _, part := range []string{"web.yaml", `"Service"`, "spec.selektor", "no such field"} {
		until(t, "/debug/configz has "+part, func() bool { return strings.Contains(get(t, "http://"+addr.HTTP.String()+"/debug/configz"), part) })
	}
}

func TestReconnectSendsOnlyWhatDiffers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", podsAndService)
	addr := start(t, dir)
	c := connect(t, addr.GRPC.String())
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType})
	versions := map[string]string{"Kubernetes//Pod/shop/gone": "1"}
	for _, r := range c.next(registry.AddressType).GetResources() {
		versions[r.GetName()] = r.GetVersion()
	}
	versions[webUID] = "0"
	again := connect(t, addr.GRPC.String())
	again.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType, InitialResourceVersions: versions})
	r := again.next(registry.AddressType)
	if len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != webUID || len(r.GetRemovedResources()) != 1 {
		t.Errorf("after reconnecting: %v", r)
	}
}

func TestOnDemand(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", podsAndService)
	addr := start(t, dir)
	for _, key := range []string{"/10.96.0.7", webService} {
		c := connect(t, addr.GRPC.String())
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType, ResourceNamesSubscribe: []string{"*"}, ResourceNamesUnsubscribe: []string{"*"}})
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType, ResourceNamesSubscribe: []string{key}})
		r := c.next(registry.AddressType)
		if len(r.GetResources()) == 0 {
			r = c.next(registry.AddressType)
		}
		if len(r.GetResources()) != 2 {
			t.Errorf("%s: %v, want the service and its workload", key, r)
		}
	}
}

// Hardly anybody asks for workloads as a type of their own: they are made for those who do.
func TestWorkloadsAsATypeOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	addr := start(t, dir)
	for range 2 { // the second client comes after the first one has gone
		c := connect(t, addr.GRPC.String())
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.WorkloadType})
		if r := c.next(registry.WorkloadType); len(r.GetResources()) != 0 {
			t.Errorf("before there is any: %v", r)
		}
		write(t, dir, "web.yaml", podsAndService)
		if w := unmarshal(t, c.next(registry.WorkloadType), webUID, &workload.Workload{}); w.GetName() != "web-1" {
			t.Errorf("workload %v", w)
		}
		if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
			t.Fatal(err)
		}
		if r := c.next(registry.WorkloadType); len(r.GetRemovedResources()) != 1 {
			t.Errorf("after the pod has gone: %v", r)
		}
		if err := c.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body)
}

func TestEndpoints(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", podsAndService)
	addr := start(t, dir)
	for path, want := range map[string]string{
		"/ready":           "",
		"/debug/list":      "/debug/syncz",
		"/debug/ambientz":  webUID,
		"/debug/registryz": "web.shop.svc.cluster.local",
		"/debug/endpointz": webUID,
		"/debug/syncz":     "[]",
		"/debug/mesh":      "cluster.local",
	} {
		if body := get(t, "http://"+addr.HTTP.String()+path); !strings.Contains(body, want) {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	body := get(t, "http://"+addr.Monitoring.String()+"/metrics")
	for _, want := range []string{"pilot_services 1", `istio_build{component="pilot"`, "istiod_uptime_seconds", "pilot_info", `pilot_k8s_reg_events{event="add",type="Services"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestNeedsASource(t *testing.T) {
	cfg := Default()
	cfg.Log = slog.New(slog.DiscardHandler)
	if err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "--configDir") {
		t.Errorf("Run without a source: %v", err)
	}
}
