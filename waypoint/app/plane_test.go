package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/waypoint/app"
)

// identity is the proxy's.
var identity = spiffe.ID{TrustDomain: "cluster.local", Namespace: "edge", ServiceAccount: "gateway"}

// plane is a control plane: incremental discovery and a CA, without TLS.
type plane struct {
	authv1.UnimplementedIstioCertificateServiceServer
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	address  string
	ca       *testkit.CA
	lifetime time.Duration

	mu      sync.Mutex // guards the rest
	changed chan struct{}
	version int
	content map[string]map[string]*discoveryv3.Resource // type → name
	nacks   []string
	nodes   []*corev3.Node
	issued  int
	server  *grpc.Server
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	authority, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{address: freeAddress(t), ca: authority, lifetime: time.Hour, changed: make(chan struct{}), content: map[string]map[string]*discoveryv3.Resource{}}
	p.start(t)
	t.Cleanup(p.stop)
	return p
}

func (p *plane) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.server = grpc.NewServer()
	authv1.RegisterIstioCertificateServiceServer(p.server, p)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(p.server, p)
	server := p.server
	go func() { _ = server.Serve(listener) }()
}

func (p *plane) stop() { p.server.Stop() }

func (p *plane) CreateCertificate(_ context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	p.mu.Lock()
	p.issued++
	lifetime := p.lifetime
	p.mu.Unlock()
	chain, err := p.ca.Chain([]byte(r.GetCsr()), identity, lifetime)
	return &authv1.IstioCertificateResponse{CertChain: chain}, err
}

// set replaces resources; a nil one is removed.
func (p *plane) set(t *testing.T, resources map[string]proto.Message) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	for key, m := range resources {
		kind, name, _ := strings.Cut(key, " ")
		typeURL := "type.googleapis.com/envoy.config." + map[string]string{
			"listener": "listener.v3.Listener", "cluster": "cluster.v3.Cluster", "route": "route.v3.RouteConfiguration", "endpoints": "endpoint.v3.ClusterLoadAssignment",
		}[kind]
		if p.content[typeURL] == nil {
			p.content[typeURL] = map[string]*discoveryv3.Resource{}
		}
		if m == nil {
			delete(p.content[typeURL], name)
			continue
		}
		content, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		p.content[typeURL][name] = &discoveryv3.Resource{Name: name, Version: fmt.Sprint(p.version), Resource: content}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// DeltaAggregatedResources serves one proxy.
func (p *plane) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	subscribed := map[string]map[string]bool{}
	sent := map[string]map[string]string{}
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		select {
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			p.follow(r, subscribed, sent)
		case <-changed:
		}
		if err := p.push(stream, subscribed, sent); err != nil {
			return err
		}
	}
}

func (p *plane) follow(r *discoveryv3.DeltaDiscoveryRequest, subscribed map[string]map[string]bool, sent map[string]map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.GetNode() != nil {
		p.nodes = append(p.nodes, r.GetNode())
	}
	if detail := r.GetErrorDetail(); detail != nil {
		p.nacks = append(p.nacks, detail.GetMessage())
	}
	url := r.GetTypeUrl()
	if subscribed[url] == nil {
		subscribed[url], sent[url] = map[string]bool{}, map[string]string{}
		if strings.HasSuffix(url, ".Listener") || strings.HasSuffix(url, ".Cluster") {
			subscribed[url]["*"] = true
		}
	}
	for name, version := range r.GetInitialResourceVersions() {
		sent[url][name] = version
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		subscribed[url][name] = true
		delete(sent[url], name)
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		delete(subscribed[url], name)
		delete(sent[url], name)
	}
}

// push sends what a stream lacks, clusters first.
func (p *plane) push(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, subscribed map[string]map[string]bool, sent map[string]map[string]string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	order := []string{"cluster.v3.Cluster", "endpoint.v3.ClusterLoadAssignment", "listener.v3.Listener", "route.v3.RouteConfiguration"}
	for _, kind := range order {
		url := "type.googleapis.com/envoy.config." + kind
		names := subscribed[url]
		if names == nil {
			continue
		}
		first := sent[url]["answered"] == ""
		response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: fmt.Sprint(time.Now().UnixNano())}
		for name, resource := range p.content[url] {
			if (names["*"] || names[name]) && sent[url][name] != resource.GetVersion() {
				response.Resources = append(response.Resources, resource)
				sent[url][name] = resource.GetVersion()
			}
		}
		for name := range sent[url] {
			if p.content[url][name] == nil && name != "answered" {
				response.RemovedResources = append(response.RemovedResources, name)
				delete(sent[url], name)
			}
		}
		if !first && len(response.GetResources())+len(response.GetRemovedResources()) == 0 {
			continue
		}
		sent[url]["answered"] = "yes"
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	return nil
}

func (p *plane) refused() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.nacks)
}

// proxyConfig is a gateway's under the plane.
func proxyConfig(t *testing.T, p *plane) app.Config {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream := app.Upstream{URL: "http://" + p.address}
	log, levels := telemetry.NewLogger(testWriter{t}, telemetry.Options{Level: slog.LevelInfo})
	return app.Config{
		Kind: app.Router, Domain: "edge.svc.cluster.local", PodName: "gw-abc-1", PodNamespace: "edge", ServiceAccount: "gateway",
		ClusterID: "c1", TrustDomain: "cluster.local", InstanceIPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")},
		Labels:   map[string]string{"gateway.networking.k8s.io/gateway-name": "gw", "pod-template-hash": "abc", "app": "gw"},
		Metadata: map[string]any{"MESH_ID": "m"}, ProxyConfig: &meshconfig.ProxyConfig{}, XDS: upstream, CA: upstream, TokenFile: token, SecretTTL: time.Hour,
		Drain:     app.Drain{Termination: 300 * time.Millisecond, Listener: time.Second},
		AdminAddr: freeAddress(t), MetricsAddr: freeAddress(t), ReadinessAddr: freeAddress(t), EngineMetricsAddr: freeAddress(t),
		Build: telemetry.NewBuild("1.2.3", "abcdef"), Log: log, Levels: levels,
	}
}

// testWriter logs to the test until it ends.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// freeAddress is one that nobody listens on yet.
func freeAddress(t *testing.T) string {
	t.Helper()
	return tcp.Free(t)
}

// refusing is an address at which every connection is refused.
func refusing(t *testing.T) string {
	t.Helper()
	return tcp.Nobody(t).String()
}

// run runs the proxy; the function that is returned ends it and returns its error.
func run(t *testing.T, cfg app.Config) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, cfg) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("the proxy does not end")
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// eventually polls until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	err := errors.New("not looked at")
	wait.Until(t, time.Minute, what, func() bool {
		err = check()
		return err == nil
	}, func() string { return err.Error() })
}

// get returns the body of an answer, and an error when the status is another one.
func get(url string, status int) (string, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("%s: %s: %.300s", url, response.Status, body)
	}
	return string(body), err
}
