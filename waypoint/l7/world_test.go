package l7

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// parse reads a message from relaxed JSON: single quotes are double ones.
func parse[T proto.Message](t testing.TB, into T, text string) T {
	t.Helper()
	if err := protojson.Unmarshal([]byte(strings.ReplaceAll(text, "'", `"`)), into); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return into
}

const (
	typeURL   = "type.googleapis.com/envoy."
	routerAny = "{'name': 'envoy.filters.http.router', 'typed_config': {'@type': '" + typeURL + "extensions.filters.http.router.v3.Router'}}"
)

// manager is an HTTP connection manager with options, filters and inline routes.
func manager(options, filters, routes string) string {
	if filters != "" {
		filters += ","
	}
	if options != "" {
		options += ","
	}
	return "{'name': 'hcm', 'typed_config': {'@type': '" + typeURL + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'," +
		options + "'stat_prefix': 'x', 'server_name': 'istio-envoy', 'http_filters': [" + filters + routerAny + "]," +
		"'route_config': {'name': 'r', 'validate_clusters': false," + routes + "}}}"
}

// vhost is route_config's virtual_hosts with one that has the routes.
func vhost(routes string) string {
	return "'virtual_hosts': [{'name': 'v', 'domains': ['*'], 'routes': [" + routes + "]}]"
}

// world is a configuration with one plain listener and two clusters.
type world struct {
	cfg  *Config
	conn Conn
	req  Request
	d    Decision
	rnd  *rand.Rand
	now  time.Time
}

func newWorld(t testing.TB, hcm string) *world {
	t.Helper()
	l, err := CompileListener(parse(t, &listenerv3.Listener{}, `{'name': 'l', 'address': {'socket_address': {'address': '127.0.0.1', 'port_value': 8080}},
		'filter_chains': [{'name': 'c', 'filters': [`+hcm+`]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	u := Update{Listeners: map[string]*Listener{"l": l}, Clusters: map[string]*Cluster{}}
	for _, name := range []string{"up", "up2"} {
		c, err := CompileCluster(parse(t, &clusterv3.Cluster{}, `{'name': '`+name+`', 'type': 'STATIC', 'connect_timeout': '1s', 'load_assignment': {'cluster_name': 'x',
			'endpoints': [{'lb_endpoints': [{'endpoint': {'address': {'socket_address': {'address': '10.0.0.1', 'port_value': 80}}}}]}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		u.Clusters[name] = c
	}
	return &world{
		cfg:  NewConfig().With(u),
		conn: Conn{Source: netip.MustParseAddrPort("10.9.9.9:5555"), Destination: netip.MustParseAddrPort("10.1.1.1:8080")},
		rnd:  rand.New(rand.NewPCG(1, 2)), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// request makes a head: "GET /path" and "key: value" pairs; host sets the authority.
func request(line string, headers ...string) *httpmsg.Head {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Authority = httpmsg.HTTP11, "x"
	h.Method, h.Path, _ = strings.Cut(line, " ")
	for _, kv := range headers {
		k, v, _ := strings.Cut(kv, ": ")
		switch k {
		case "host":
			h.Authority = v
		case "upgrade":
			h.Upgrade = v
		default:
			h.Header.Add(k, v)
		}
	}
	return h
}

// decide decides about a request on the listener.
func (w *world) decide(t testing.TB, h *httpmsg.Head) *Decision {
	t.Helper()
	ch, ok := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
	if !ok {
		t.Fatal("no filter chain")
	}
	w.req.Begin(h, &w.conn)
	w.cfg.Decide(&w.d, ch, &w.req, w.now, w.rnd)
	return &w.d
}

// reply is the local answer to the last request: "403 RBAC: access denied", and its head.
func (w *world) reply() (string, *httpmsg.Head) {
	var h httpmsg.Head
	body := w.d.LocalReply(&w.req, w.d.Reply, &ResponseInfo{Now: w.now, Attempts: 1}, &h)
	return strings.TrimSpace(strconv.Itoa(h.Status) + " " + body), &h
}

func compileRC(t testing.TB, text string) (*Routes, error) {
	t.Helper()
	return CompileRoutes(parse(t, &routev3.RouteConfiguration{}, text))
}

func compileCLA(t testing.TB, text string) (*Endpoints, error) {
	t.Helper()
	return CompileEndpoints(parse(t, &endpointv3.ClusterLoadAssignment{}, text))
}
