package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The proxies that are compared.
const (
	isthmus = "isthmus"
	haproxy = "haproxy"
	envoyed = "envoy"
)

// proxy is one of them, running.
type proxy struct {
	*process
	address netip.AddrPort // where it takes requests
	in      io.WriteCloser // of our engine: questions
	out     *bufio.Reader  // and answers
}

// kind is isthmus, haproxy or envoyed.
func (p *proxy) kind() string {
	kind, _, _ := strings.Cut(p.name, "-")
	return kind
}

// used is CPU time, and of our engine what it has allocated.
type used struct {
	cpu         time.Duration
	allocations int64
}

// used is what the proxy has used up to now. What our garbage collector does only because a processor is idle does not count.
func (p *proxy) used() (u used, err error) {
	if u.cpu, err = p.cpu(); err != nil || p.in == nil {
		return u, err
	}
	idle, err := p.ask("idle")
	if err != nil {
		return u, err
	}
	u.cpu -= time.Duration(idle)
	u.allocations, err = p.ask("allocations")
	return u, err
}

func (p *proxy) ask(what string) (int64, error) {
	if _, err := fmt.Fprintln(p.in, what); err != nil {
		return 0, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("ask %s for %s: %w", p.name, what, err)
	}
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

// stop ends our engine by the end of its standard input, so that its profile is written.
func (p *proxy) stop() {
	if p == nil {
		return
	}
	if p.in != nil {
		p.in.Close()
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
		}
	}
	p.process.stop()
}

// startIsthmus runs our engine in a process of its own.
func (b *testbed) startIsthmus(ctx context.Context, kind, name string, address netip.AddrPort) (*proxy, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := setup{Kind: kind, Pod: name, Plane: b.plane.address, Dir: b.dir}
	if b.options.profiles != "" {
		s.Profile = filepath.Join(b.options.profiles, name+".pprof")
	}
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &proxy{process: &process{name: name, cmd: exec.CommandContext(ctx, self, childArg), log: log.Name(), ended: make(chan struct{})}, address: address}
	p.cmd.Stderr = log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if err := json.NewEncoder(p.in).Encode(s); err != nil {
		p.stop()
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return p, nil
}

type object = map[string]any

// startEnvoy runs the real Envoy with the bootstrap that an agent writes, as far as it matters here, and as many workers as there
// are processors, as is its default and that of the others.
func (b *testbed) startEnvoy(ctx context.Context, kind, name string, address netip.AddrPort) (*proxy, error) {
	plane, err := netip.ParseAddrPort(b.plane.address)
	if err != nil {
		return nil, err
	}
	cluster := func(name string) object {
		return object{
			"name": name, "type": "STATIC", "connect_timeout": "5s",
			"load_assignment": object{"cluster_name": name, "endpoints": []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": object{
				"socket_address": object{"address": plane.Addr().String(), "port_value": plane.Port()},
			}}}}}}},
			"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{}},
			}},
		}
	}
	ads := object{"ads": object{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	bootstrap := object{
		"node": object{"id": kind + "~127.0.0.1~" + name + "." + namespace + "~" + namespace + ".svc.cluster.local", "cluster": name},
		"bootstrap_extensions": []any{object{
			"name":         "envoy.bootstrap.internal_listener",
			"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"},
		}},
		"dynamic_resources": object{
			"ads_config": object{
				"api_type": "DELTA_GRPC", "set_node_on_first_message_only": true, "transport_api_version": "V3",
				"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "xds-grpc"}}},
			},
			"lds_config": ads, "cds_config": ads,
		},
		"static_resources": object{"clusters": []any{cluster("xds-grpc"), cluster("sds-grpc")}},
	}
	text, err := json.Marshal(bootstrap)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, name+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	started, err := startProcess(ctx, b.dir, name, b.options.envoy, "-c", file, "--disable-hot-restart", "--log-level", "warn", "--component-log-level", "misc:error")
	if err != nil {
		return nil, fmt.Errorf("%w; `make envoy` fetches it", err)
	}
	return &proxy{process: started, address: address}, nil
}

// startHAProxy runs HAProxy with the same hosts, routes and policies in its own terms; routes are found by a map, which is its
// quickest way.
func (b *testbed) startHAProxy(ctx context.Context, name string, address netip.AddrPort) (*proxy, error) {
	var table, config strings.Builder
	fmt.Fprintf(&config, `global
  maxconn 4096
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  http-reuse always
  option forwardfor
  retries 2
  retry-on conn-failure 503
frontend gateway
  bind %s
  http-request deny if { path_beg /admin/ }
  http-request deny unless { src 127.0.0.0/8 } { method GET POST PUT } { path_beg /api/ }
  http-request set-header x-request-id %%[uuid()]
  http-request set-header x-forwarded-proto http
  http-response set-header server haproxy
  http-request return status 404 unless { base,map_beg(%[2]s) -m found }
  use_backend %%[base,map_beg(%[2]s)]
`, address, filepath.Join(b.dir, "routes.map"))
	for host := range hosts {
		for k := range routesPerHost {
			fmt.Fprintf(&table, "%s%s svc-%d\n", domain(host), pathPrefix(k), host)
		}
		server := b.h1.String()
		if speaksHTTP2(host) {
			server = b.h2.String() + " proto h2"
		}
		fmt.Fprintf(&config, "backend svc-%d\n  balance leastconn\n  server pod %s\n", host, server)
	}
	file := filepath.Join(b.dir, "haproxy.cfg")
	for path, text := range map[string]string{file: config.String(), filepath.Join(b.dir, "routes.map"): table.String()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	started, err := startProcess(ctx, b.dir, name, b.options.haproxy, "-db", "-f", file)
	if err != nil {
		return nil, fmt.Errorf("%w; `make deps` installs it", err)
	}
	return &proxy{process: started, address: address}, nil
}
