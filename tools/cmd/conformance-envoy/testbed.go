package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"sigs.k8s.io/yaml"
)

// testbed is the control plane, the backends and the proxies.
type testbed struct {
	options  options
	dir      string
	pki      *pki
	edge     *edgePKI
	backends *backends
	pilot    *exec.Cmd
	ended    chan error
	// proxies by the way to them (waypoint, ingress, gateway), Envoy first.
	proxies map[string][]*proxy
	keys    atomic.Int64
	stage   int
	istiod  *istiod // nil: Envoy is configured by our control plane, too
	proxied string  // PROXY header that gateways want to see
	acked   map[string]bool
	logRead int64 // how much of the control plane's log has been looked at
}

// ways in the order in which proxies are started.
func ways() []string { return []string{"waypoint", "ingress", "gateway"} }

func newTestbed(ctx context.Context, o options, dir string) (*testbed, error) {
	for _, path := range []*string{&o.bin, &o.envoy} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = absolute
	}
	p, err := newPKI()
	if err != nil {
		return nil, err
	}
	edge, err := newEdgePKI()
	if err != nil {
		return nil, err
	}
	b := &testbed{
		options: o, dir: dir, pki: p, edge: edge, proxies: map[string][]*proxy{}, acked: map[string]bool{},
		backends: &backends{keys: map[string][]string{}},
	}
	if err := b.start(ctx); err != nil {
		b.printLogs(os.Stdout)
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *testbed) start(ctx context.Context) error {
	var own []netip.Addr
	for _, w := range workloads() {
		if !w.proxy {
			own = append(own, w.ip)
		}
	}
	if err := setUpHub(ctx, own); err != nil {
		return err
	}
	for _, w := range workloads() {
		if len(w.ports) > 0 {
			if err := b.backends.serve(ctx, b.pki, w); err != nil {
				return err
			}
		}
	}
	if err := b.startPilot(ctx); err != nil {
		return err
	}
	if err := b.serveKeys(ctx); err != nil {
		return err
	}
	if b.options.istiod != "" {
		var err error
		if b.istiod, err = startIstiod(ctx, b.options.istiod); err != nil {
			return err
		}
	}
	for i, way := range ways() {
		pair := proxyPairs()[i]
		engines := []string{"envoy", "isthmus"}
		switch b.options.engine {
		case "envoy":
			engines = engines[:1]
		case "isthmus":
			engines = engines[1:]
		}
		for j, engine := range engines {
			p, err := b.newProxy(ctx, 10*i+j, pair, engine)
			if err != nil {
				return err
			}
			b.proxies[way] = append(b.proxies[way], p)
		}
	}
	return nil
}

func (b *testbed) startPilot(ctx context.Context) error {
	for _, d := range []string{"config", "ca"} {
		if err := os.MkdirAll(filepath.Join(b.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := b.pki.write(filepath.Join(b.dir, "ca")); err != nil {
		return err
	}
	if err := b.edge.write(filepath.Join(b.dir, "ca")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config", "world.yaml"), []byte(worldYAML("service", nil, variation{})), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "mesh.yaml"), []byte("trustDomain: cluster.local\n"), 0o600); err != nil {
		return err
	}
	at := func(port string) string { return net.JoinHostPort(hub().String(), port) }
	var err error
	b.pilot, b.ended, err = startProcess(b.dir, "pilot", []string{
		filepath.Join(b.options.bin, "pilot-discovery"), "discovery",
		"--configDir", filepath.Join(b.dir, "config"), "--meshConfig", filepath.Join(b.dir, "mesh.yaml"), "--caDir", filepath.Join(b.dir, "ca"),
		"--jwksFile", filepath.Join(b.dir, "ca", "jwks.json"), "--httpAddr", at("8080"), "--grpcAddr", at("15010"), "--secureGRPCAddr", at("15012"),
		"--monitoringAddr", "127.0.0.1:15014",
	}, []string{"POD_NAME=istiod-1", "POD_NAMESPACE=istio-system"})
	if err != nil {
		return err
	}
	return eventually(ctx, time.Minute, "the control plane listens", func() error {
		select {
		case err := <-b.ended:
			b.ended <- err
			return fatal{fmt.Errorf("the control plane has ended: %s", fmt.Sprint(err))}
		default:
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at("15010"))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// fatal is an error after which there is nothing to wait for.
type fatal struct{ error }

// eventually calls check until it returns nil.
func eventually(ctx context.Context, limit time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if end := (fatal{}); errors.As(err, &end) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		pause(ctx, 25*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// apply makes the fixture the whole configuration, and waits until every proxy has it.
func (b *testbed) apply(ctx context.Context, f *fixture) error {
	b.stage++
	marker := fmt.Sprintf("%s-%d", f.name, b.stage)
	b.proxied = f.proxied
	mesh := "trustDomain: cluster.local\n" + f.mesh
	if err := replaceFile(filepath.Join(b.dir, "mesh.yaml"), mesh); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(b.dir, "config", "world.yaml"), worldYAML(orDefault(f.waypointFor, "service"), f.waypointAnnotations, f.world)); err != nil {
		return err
	}
	keys, err := os.ReadFile(filepath.Join(b.dir, "ca", "jwks.json"))
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(strings.Join(f.config, "\n---\n"), "{{jwks}}", string(keys))
	text = strings.ReplaceAll(text, "{{files}}", filepath.Join(b.dir, "ca"))
	if text, err = inBase64(filepath.Join(b.dir, "ca"), text); err != nil {
		return err
	}
	if text, err = b.edge.fill(text); err != nil {
		return err
	}
	text += "\n---\n" + markerYAML(marker, f.hasGateway())
	if err := replaceFile(filepath.Join(b.dir, "config", "fixture.yaml"), text); err != nil {
		return err
	}
	if b.istiod != nil {
		world := worldYAML(orDefault(f.waypointFor, "service"), f.waypointAnnotations, f.world)
		b.istiod.refused = b.istiod.apply(ctx, world+text, f.mesh)
	}
	f.unready = map[string]error{}
	for _, way := range ways() {
		if !f.uses(way) {
			continue
		}
		for _, p := range b.proxies[way] {
			err := eventually(ctx, time.Minute, p.pod+" has the configuration", func() error { return b.marked(ctx, p, way, marker) })
			if err != nil {
				f.unready[way] = err
				break
			}
		}
	}
	return ctx.Err()
}

var fileInBase64 = regexp.MustCompile(`\{\{base64 ([a-z.-]+)\}\}`)

// inBase64 puts files in the places that name them.
func inBase64(dir, text string) (string, error) {
	var failed error
	out := fileInBase64.ReplaceAllStringFunc(text, func(place string) string {
		data, err := os.ReadFile(filepath.Join(dir, fileInBase64.FindStringSubmatch(place)[1]))
		if err != nil {
			failed = err
		}
		return base64.StdEncoding.EncodeToString(data)
	})
	return out, failed
}

// replaceFile never shows half of it.
func replaceFile(name, text string) error {
	tmp := name + "~"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// uses tells whether there is configuration for the proxies at the end of a way.
func (f *fixture) uses(way string) bool { return way != "gateway" || f.hasGateway() }

// hasGateway tells whether the fixture has the Gateway of the Gateway API that there are pods for.
func (f *fixture) hasGateway() bool {
	for _, text := range f.config {
		for _, doc := range strings.Split(text, "\n---\n") {
			var object struct {
				APIVersion string `json:"apiVersion"`
				Kind       string `json:"kind"`
				Metadata   struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			if yaml.Unmarshal([]byte(doc), &object) == nil && object.Kind == "Gateway" && object.Metadata.Name == "bookinfo-gateway" &&
				strings.HasPrefix(object.APIVersion, "gateway.networking.k8s.io/") {
				return true
			}
		}
	}
	return false
}

// markerYAML is configuration by whose effect one can see that a proxy has it.
func markerYAML(marker string, gateway bool) string {
	out := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: marker, namespace: default}
spec: {hosts: [marker.default.svc.cluster.local], http: [{directResponse: {status: 200, body: {string: %[1]s}}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: marker, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: [marker.example.com]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: marker, namespace: istio-system}
spec: {hosts: [marker.example.com], gateways: [marker], http: [{directResponse: {status: 200, body: {string: %[1]s}}}]}
`, marker)
	if gateway {
		out += fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: marker, namespace: default}
spec:
  parentRefs: [{name: bookinfo-gateway}]
  hostnames: [marker.example.com]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: %s.example.com}}]}]
`, marker)
	}
	return out
}

// marked asks one proxy for the marker.
func (b *testbed) marked(ctx context.Context, p *proxy, way, marker string) error {
	if err := p.alive(); err != nil {
		return fatal{err}
	}
	r := request{Via: way, Host: "marker.example.com"}
	if way == "waypoint" {
		r.To = "marker:8000"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := b.send(ctx, p, r)
	if err != nil {
		return err
	}
	if got.body != marker && !strings.Contains(got.header.Get("Location"), "//"+marker+".") {
		return fmt.Errorf("the marker is %d %q %q %s, not %s", got.status, got.body, got.header.Get("Location"), got.refused, marker)
	}
	return nil
}

func (b *testbed) close() {
	for _, way := range ways() {
		for _, p := range b.proxies[way] {
			p.close()
		}
	}
	if b.istiod != nil {
		b.istiod.stop()
	}
	if b.pilot != nil {
		b.pilot.Process.Kill()
		<-b.ended
	}
}
