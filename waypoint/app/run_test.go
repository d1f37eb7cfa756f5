package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/waypoint/app"
)

func TestMain(m *testing.M) {
	os.Exit(leak.Goroutines(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")))
}

// gateway is a proxy that serves one route of one listener.
type gateway struct {
	*plane
	cfg          app.Config
	url, logPath string
	stop         func() error
}

func newGateway(t *testing.T, change func(*app.Config)) *gateway {
	t.Helper()
	p := newPlane(t)
	g := &gateway{plane: p, cfg: proxyConfig(t, p), logPath: filepath.Join(t.TempDir(), "access.log")}
	if change != nil {
		change(&g.cfg)
	}
	address := freeAddress(t)
	g.url = "http://" + address
	p.set(t, map[string]proto.Message{
		"listener 0.0.0.0_8080": gatewayListener(t, address, "http.8080", g.logPath), "route http.8080": routes("http.8080", "/", reviews),
		"cluster " + reviews: edsCluster(t, reviews), "endpoints " + reviews: endpoints(t, reviews, backend(t, "v1")),
	})
	g.stop = run(t, g.cfg)
	return g
}

// ready waits for the probe.
func (g *gateway) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the proxy is ready", func() error {
		_, err := get("http://"+g.cfg.ReadinessAddr+"/healthz/ready", http.StatusOK)
		return err
	})
}

// answers waits until the gateway answers so.
func (g *gateway) answers(t *testing.T, path, want string) {
	t.Helper()
	eventually(t, path, func() error {
		body, err := get(g.url+path, http.StatusOK)
		if err == nil && body != want {
			err = fmt.Errorf("%q, want %q", body, want)
		}
		return err
	})
}

// engines runs a test with our engine and with a real Envoy.
func engines(t *testing.T, test func(t *testing.T, g *gateway)) {
	t.Run("isthmus", func(t *testing.T) { test(t, newGateway(t, nil)) })
	t.Run("envoy", func(t *testing.T) {
		test(t, newGateway(t, func(c *app.Config) {
			dir, err := os.MkdirTemp("", "wp") //nolint:usetesting // the path of a Unix socket is short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			c.Envoy = &app.Envoy{Binary: realEnvoy(t), Dir: dir, LogLevel: "warning,misc:error", Concurrency: 1}
		}))
	})
}

// realEnvoy is where `make envoy` puts it.
func realEnvoy(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../out/envoy/envoy")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("the real Envoy is missing: run `make envoy` (%v)", err)
	}
	return path
}

// The configuration is served, followed while it changes, and kept while the control plane is away; the end is orderly.
func TestServe(t *testing.T) {
	engines(t, func(t *testing.T, g *gateway) {
		g.ready(t)
		g.answers(t, "/a", "v1 /a")
		g.set(t, map[string]proto.Message{"endpoints " + reviews: endpoints(t, reviews, backend(t, "v2"))})
		g.answers(t, "/a", "v2 /a")
		other := "outbound|9080|v3|reviews.default.svc.cluster.local"
		g.set(t, map[string]proto.Message{"cluster " + other: edsCluster(t, other), "endpoints " + other: endpoints(t, other, backend(t, "v3")), "route http.8080": routes("http.8080", "/", other)})
		g.answers(t, "/a", "v3 /a")
		g.plane.stop()
		g.answers(t, "/b", "v3 /b")
		g.plane.start(t)
		g.set(t, map[string]proto.Message{"route http.8080": routes("http.8080", "/", reviews), "cluster " + other: nil, "endpoints " + other: nil})
		g.answers(t, "/c", "v2 /c")
		if refused := g.refused(); len(refused) != 0 {
			t.Errorf("refused: %q", refused)
		}
		if err := g.stop(); err != nil {
			t.Errorf("the end: %v", err)
		}
		if _, err := get(g.url+"/a", http.StatusOK); err == nil {
			t.Error("something still serves")
		}
		text, err := os.ReadFile(g.logPath)
		if want := "GET /a HTTP/1.1 200 - via_upstream " + reviews + " default\n"; err != nil || !strings.HasPrefix(string(text), want) {
			t.Errorf("access log %q, %v; want %q", text, err, want)
		}
	})
}

// A version that cannot be honoured is refused with its field, and the last good one serves.
func TestRefuse(t *testing.T) {
	engines(t, func(t *testing.T, g *gateway) {
		g.ready(t)
		g.answers(t, "/a", "v1 /a")
		bad := gatewayListener(t, strings.TrimPrefix(g.url, "http://"), "http.8080", g.logPath)
		bad.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &listenerv3.Listener{})}
		g.set(t, map[string]proto.Message{"listener 0.0.0.0_8080": bad})
		eventually(t, "the listener is refused", func() error {
			if refused := g.refused(); len(refused) == 0 || !strings.Contains(refused[0], "0.0.0.0_8080") {
				return fmt.Errorf("refused: %q", refused)
			}
			return nil
		})
		g.answers(t, "/b", "v1 /b")
	})
}

// Tools of the field read the admin port: the dump decodes as Envoy's types, and says what S1 of the walkthroughs shows.
func TestAdmin(t *testing.T) {
	engines(t, func(t *testing.T, g *gateway) {
		g.ready(t)
		g.answers(t, "/a", "v1 /a")
		door := "http://" + g.cfg.AdminAddr
		text, err := get(door+"/config_dump?include_eds", http.StatusOK)
		if err != nil {
			t.Fatal(err)
		}
		dump := &adminv3.ConfigDump{}
		if err := protojson.Unmarshal([]byte(text), dump); err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, packed := range dump.GetConfigs() {
			section, err := packed.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			describe(t, section, found)
		}
		for _, want := range []string{
			"node router~10.0.0.9~gw-abc-1.edge~edge.svc.cluster.local", "static prometheus_stats", "static agent", "static sds-grpc", "static xds-grpc", "static zipkin",
			"cluster " + reviews, "endpoints " + reviews, "listener 0.0.0.0_8080", "route http.8080",
		} {
			if !found[want] {
				t.Errorf("no %q in the dump, only %v", want, found)
			}
		}
		text, err = get(door+"/clusters?format=json", http.StatusOK)
		clusters := &adminv3.Clusters{}
		if err = errors.Join(err, protojson.Unmarshal([]byte(text), clusters)); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(clusters.GetClusterStatuses(), func(c *adminv3.ClusterStatus) bool {
			return c.GetName() == reviews && len(c.GetHostStatuses()) == 1 && c.GetHostStatuses()[0].GetHealthStatus().GetEdsHealthStatus().String() == "HEALTHY"
		}) {
			t.Errorf("clusters: %v", clusters)
		}
		for path, want := range map[string]string{
			"/ready": "LIVE", "/server_info": `"state"`, "/listeners": "0.0.0.0_8080::127.0.0.1:", "/clusters": reviews + "::observability_name::",
			"/certs": "certificates", "/stats": "cluster." + reviews + ".upstream_rq_total: 1", "/help": "/config_dump", "/memory": "allocated",
			"/stats/prometheus": "envoy_cluster_upstream_rq_total", "/stats?format=json": `"stats"`,
			"/config_dump?resource=dynamic_listeners": "0.0.0.0_8080", "/config_dump?name_regex=http.*": "http.8080",
		} {
			if got, err := get(door+path, http.StatusOK); err != nil || !strings.Contains(got, want) {
				t.Errorf("%s: %v: %.200s", path, err, got)
			}
		}
	})
}

// describe notes what a section has.
func describe(t *testing.T, section proto.Message, found map[string]bool) {
	t.Helper()
	name := func(kind string, any interface{ UnmarshalNew() (proto.Message, error) }) {
		m, err := any.UnmarshalNew()
		if err != nil {
			t.Error(err)
			return
		}
		if n, ok := m.(interface{ GetName() string }); ok {
			found[kind+" "+n.GetName()] = true
		}
		if n, ok := m.(interface{ GetClusterName() string }); ok {
			found[kind+" "+n.GetClusterName()] = true
		}
	}
	switch s := section.(type) {
	case *adminv3.BootstrapConfigDump:
		found["node "+s.GetBootstrap().GetNode().GetId()] = true
	case *adminv3.ClustersConfigDump:
		for _, c := range s.GetStaticClusters() {
			name("static", c.GetCluster())
		}
		for _, c := range s.GetDynamicActiveClusters() {
			name("cluster", c.GetCluster())
			if c.GetVersionInfo() == "" || c.GetLastUpdated() == nil {
				t.Errorf("cluster without version or time: %v", c)
			}
		}
	case *adminv3.EndpointsConfigDump:
		for _, e := range s.GetDynamicEndpointConfigs() {
			name("endpoints", e.GetEndpointConfig())
		}
	case *adminv3.ListenersConfigDump:
		for _, l := range s.GetDynamicListeners() {
			name("listener", l.GetActiveState().GetListener())
		}
	case *adminv3.RoutesConfigDump:
		for _, r := range s.GetDynamicRouteConfigs() {
			name("route", r.GetRouteConfig())
		}
	}
}

// The private key is in no dump.
func TestDumpHasNoSecrets(t *testing.T) {
	g := newGateway(t, nil)
	g.ready(t)
	text, err := get("http://"+g.cfg.AdminAddr+"/config_dump?resource=dynamic_active_secrets", http.StatusOK)
	if err != nil || strings.Count(text, "version_info") != 2 || !strings.Contains(text, "W3JlZGFjdGVkXQ==") || !strings.Contains(text, "certificate_chain") {
		t.Errorf("%v: %s", err, text)
	}
}

func TestMetrics(t *testing.T) {
	engines(t, func(t *testing.T, g *gateway) {
		g.ready(t)
		g.answers(t, "/a", "v1 /a")
		wanted := []string{"envoy_cluster_upstream_rq_total{cluster_name=\"" + reviews + "\"} 1"}
		if g.cfg.Envoy == nil {
			wanted = append(wanted, `reporter="source"`, `source_workload="gw"`, `source_workload_namespace="edge"`, `destination_workload="reviews-v1"`,
				`destination_service="reviews.default.svc.cluster.local"`, `response_code="200"`)
		}
		for _, url := range []string{"http://" + g.cfg.MetricsAddr + "/stats/prometheus", "http://" + g.cfg.EngineMetricsAddr + "/stats/prometheus"} {
			// A request is counted when it has ended on both sides, which may be after the client has its answer.
			eventually(t, "metrics of "+url, func() error {
				text, err := get(url, http.StatusOK)
				if err != nil {
					return err
				}
				for _, want := range wanted {
					line := text
					if !strings.HasPrefix(want, "envoy_") {
						line = grep(text, "istio_requests_total{")
					}
					if !strings.Contains(line, want) {
						return fmt.Errorf("no %s in %s", want, line)
					}
				}
				return nil
			})
		}
		text, err := get("http://"+g.cfg.MetricsAddr+"/stats/prometheus", http.StatusOK)
		if err != nil || !strings.Contains(text, `istio_build{component="proxy",tag="1.2.3"} 1`) {
			t.Errorf("merged metrics: %v", err)
		}
	})
}

// grep returns the lines that begin so.
func grep(text, prefix string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestLevelsAndProbe(t *testing.T) {
	g := newGateway(t, nil)
	g.ready(t)
	door := "http://" + g.cfg.AdminAddr
	for _, tt := range []struct {
		path   string
		status int
		want   string
	}{
		{"/logging", 200, "active loggers:\n  default: info\n"},
		{"/logging?xds=debug", 200, "  xds: debug\n"},
		{"/logging?paths=ca:warning,xds:info", 200, "  ca: warn\n"},
		{"/logging?level=debug", 200, "  default: debug\n  accesslog: debug\n"},
		{"/logging?level=loud", 400, "loud"},
		{"/healthcheck/fail", 200, "OK"},
	} {
		response, err := http.Post(door+tt.path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 1000)
		n, _ := response.Body.Read(body)
		response.Body.Close()
		if response.StatusCode != tt.status || !strings.Contains(string(body[:n]), tt.want) {
			t.Errorf("%s: %d %q", tt.path, response.StatusCode, body[:n])
		}
	}
	if _, err := get("http://"+g.cfg.ReadinessAddr+"/healthz/ready", http.StatusServiceUnavailable); err != nil {
		t.Error(err)
	}
	if _, err := get(door+"/quitquitquit", http.StatusMethodNotAllowed); err != nil {
		t.Error(err)
	}
	var stats struct{ Stats []struct{ Name string } }
	text, err := get(door+"/stats?format=json&filter=lds", http.StatusOK)
	if err = errors.Join(err, json.Unmarshal([]byte(text), &stats)); err != nil || len(stats.Stats) != 2 {
		t.Errorf("%v: %s", err, text)
	}
	if response, err := http.Post(door+"/quitquitquit", "", nil); err != nil {
		t.Error(err)
	} else {
		response.Body.Close()
	}
	eventually(t, "the proxy ends by itself", func() error {
		if _, err := get(door+"/ready", http.StatusOK); err == nil {
			return errors.New("it serves")
		}
		return nil
	})
}

// Without a certificate or a control plane the proxy is not ready, and says why.
func TestNotReady(t *testing.T) {
	p := newPlane(t)
	cfg := proxyConfig(t, p)
	p.stop()
	run(t, cfg)
	eventually(t, "the probe answers", func() error {
		text, err := get("http://"+cfg.ReadinessAddr+"/healthz/ready", http.StatusServiceUnavailable)
		if err == nil && !strings.Contains(text, "certificate, configuration") {
			err = errors.New(text)
		}
		return err
	})
	if text, err := get("http://"+cfg.AdminAddr+"/ready", http.StatusServiceUnavailable); err != nil || !strings.Contains(text, "PRE_INITIALIZING") {
		t.Errorf("%v: %s", err, text)
	}
}

// Envoy that cannot be started, or ends, ends the proxy with the reason.
func TestEnvoyFails(t *testing.T) {
	for name, binary := range map[string]string{"no such file": "/nonexistent/envoy", "ends": "/bin/false"} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			cfg := proxyConfig(t, p)
			cfg.Envoy = &app.Envoy{Binary: binary, Dir: t.TempDir()}
			done := make(chan error, 1)
			go func() { done <- app.Run(t.Context(), cfg) }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), "Envoy") {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Error("the proxy goes on without its engine")
			}
		})
	}
}
