package gateway

import (
	"slices"
	"testing"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		a, b, want string
		ok         bool
	}{
		{"*", "a.test", "a.test", true},
		{"a.test", "*", "a.test", true},
		{"*.test", "a.test", "a.test", true},
		{"*.test", "test", "", false},
		{"*.a.test", "*.test", "*.a.test", true},
		{"*.b.test", "*.a.test", "", false},
		{"a.test", "b.test", "", false},
		{"*", "*", "*", true},
	} {
		if got, ok := intersect(c.a, c.b); got != c.want || ok != c.ok {
			t.Errorf("intersect(%s, %s) = %s, %v", c.a, c.b, got, ok)
		}
	}
	for host, want := range map[string]bool{
		"*": true, "a.test": true, "*.a.test": true, "": false, "*.": false, "a b": false, "a*": false, "[::1]": false,
	} {
		if validHost(host) != want {
			t.Errorf("validHost(%q)", host)
		}
	}
	if !narrower("a.test", "*.test") || narrower("*", "*.test") || !narrower("*.a.test", "*.test") {
		t.Error("narrower")
	}
}

func TestExported(t *testing.T) {
	for _, c := range []struct {
		to, byDefault []string
		namespace     string
		want          bool
	}{
		{nil, nil, "other", true},
		{nil, []string{"."}, "other", false},
		{nil, []string{"."}, "own", true},
		{[]string{"*"}, []string{"."}, "other", true},
		{[]string{"."}, nil, "other", false},
		{[]string{"a", "other"}, nil, "other", true},
		{[]string{"~"}, nil, "own", false},
	} {
		if got := exported(c.to, c.byDefault, "own", c.namespace); got != c.want {
			t.Errorf("%v %v to %s: %v", c.to, c.byDefault, c.namespace, got)
		}
	}
}

func virtualService(namespace, name string, age int, hosts ...string) *networkingv1.VirtualService {
	vs := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(1000-age), 0)),
	}}
	vs.Spec.Hosts = hosts
	vs.Spec.Http = []*networkingapi.HTTPRoute{{Name: name, DirectResponse: &networkingapi.HTTPDirectResponse{Status: 200}}}
	return vs
}

// Which VirtualService counts: of the service's or the waypoint's namespace, by the most exact host, then the oldest.
func TestWhichVirtualServiceCounts(t *testing.T) {
	const host = "web.default.svc.cluster.local"
	private := virtualService("default", "private", 9, "web")
	private.Spec.ExportTo = []string{"."}
	hidden := virtualService("default", "hidden", 99, "web")
	hidden.Spec.ExportTo = []string{"elsewhere"}
	edge := virtualService("default", "edge", 99, "web")
	edge.Spec.Gateways = []string{"edge"}
	both := virtualService("default", "both", 7, "web")
	both.Spec.Gateways = []string{"edge", "mesh"}
	for name, c := range map[string]struct {
		all  []*networkingv1.VirtualService
		want string
	}{
		"none":                               {nil, "default"},
		"the oldest":                         {[]*networkingv1.VirtualService{virtualService("default", "young", 1, "web"), virtualService("default", "old", 2, host)}, "old"},
		"by name at the same age":            {[]*networkingv1.VirtualService{virtualService("default", "b", 1, "web"), virtualService("default", "a", 1, "web")}, "a"},
		"the exact one before the wildcard":  {[]*networkingv1.VirtualService{virtualService("default", "wild", 5, "*.default.svc.cluster.local"), virtualService("default", "exact", 1, "web")}, "exact"},
		"of the waypoint's namespace":        {[]*networkingv1.VirtualService{virtualService("infra", "infra", 1, host)}, "infra"},
		"of a client's namespace":            {[]*networkingv1.VirtualService{virtualService("clients", "client", 1, host)}, "default"},
		"a short name of another namespace":  {[]*networkingv1.VirtualService{virtualService("infra", "infra", 1, "web")}, "default"},
		"private to the service's namespace": {[]*networkingv1.VirtualService{private}, "private"},
		"not exported":                       {[]*networkingv1.VirtualService{hidden}, "default"},
		"of a gateway":                       {[]*networkingv1.VirtualService{edge}, "default"},
		"of a gateway and the mesh":          {[]*networkingv1.VirtualService{edge, both}, "both"},
	} {
		w := newWorld()
		w.services[host] = &Service{Hostname: host, Namespace: "default", Name: "web", Ports: []Port{{Number: 80}}}
		in := w.waypointInput("infra/waypoint", host, 80)
		in.VirtualServices = c.all
		config, _ := WaypointRoutes(w, in)
		if routes := config.VirtualHosts[0].Routes; len(routes) != 1 || routes[0].Name != c.want {
			t.Errorf("%s: %v", name, routes)
		}
	}
}

// A VirtualService that speaks of another port only leaves the default; one whose match is wrong does not.
func TestDefaultRoute(t *testing.T) {
	const host = "web.default.svc.cluster.local"
	w := newWorld()
	for name, c := range map[string]struct {
		match *networkingapi.HTTPMatchRequest
		want  int
	}{
		"another port":    {&networkingapi.HTTPMatchRequest{Port: 81}, 1},
		"another gateway": {&networkingapi.HTTPMatchRequest{Gateways: []string{"edge"}}, 1},
		"wrong":           {&networkingapi.HTTPMatchRequest{Uri: &networkingapi.StringMatch{MatchType: &networkingapi.StringMatch_Regex{Regex: "("}}}, 0},
	} {
		vs := virtualService("default", "vs", 0, "web")
		vs.Spec.Http[0].Match = []*networkingapi.HTTPMatchRequest{c.match}
		in := w.waypointInput("default/waypoint", host, 80)
		in.VirtualServices = []*networkingv1.VirtualService{vs}
		config, _ := WaypointRoutes(w, in)
		if got := len(config.VirtualHosts[0].Routes); got != c.want {
			t.Errorf("%s: %d routes", name, got)
		}
	}
}

func TestWaypointTCP(t *testing.T) {
	const host = "web.default.svc.cluster.local"
	w := newWorld()
	to := func(host string, weight int32) *networkingapi.RouteDestination {
		return &networkingapi.RouteDestination{Destination: &networkingapi.Destination{Host: host}, Weight: weight}
	}
	vs := virtualService("default", "vs", 0, "web")
	vs.Spec.Tls = []*networkingapi.TLSRoute{{
		Match: []*networkingapi.TLSMatchAttributes{{SniHosts: []string{"a.test"}}}, Route: []*networkingapi.RouteDestination{to("a", 0)},
	}}
	vs.Spec.Tcp = []*networkingapi.TCPRoute{
		{Match: []*networkingapi.L4MatchAttributes{{Port: 81}, {SourceNamespace: "x"}, {SourceLabels: map[string]string{"a": "b"}}}, Route: []*networkingapi.RouteDestination{to("never", 0)}},
		{Match: []*networkingapi.L4MatchAttributes{{DestinationSubnets: []string{"10.1.2.3/8", "10.0.0.1"}}}, Route: []*networkingapi.RouteDestination{to("b", 0)}},
		{Match: []*networkingapi.L4MatchAttributes{{DestinationSubnets: []string{"x"}}}, Route: []*networkingapi.RouteDestination{to("never", 0)}},
		{Route: []*networkingapi.RouteDestination{to("c", 80), to("d", 20), to("e", 0)}},
		{Route: []*networkingapi.RouteDestination{to("never", 1)}},
	}
	in := w.waypointInput("default/waypoint", host, 80)
	in.VirtualServices = []*networkingv1.VirtualService{vs}
	in.ClusterName = func(host string, _ uint32, _ string) string { return host[:1] }
	routes, problems := WaypointTCP(w, in)
	if len(routes) != 3 {
		t.Fatalf("%+v", routes)
	}
	if !slices.Equal(routes[0].SNI, []string{"a.test"}) || !slices.Equal(routes[1].Destinations, []string{"10.0.0.0/8", "10.0.0.1/32"}) {
		t.Errorf("%+v", routes)
	}
	if want := []TCPTarget{{Cluster: "c", Weight: 80}, {Cluster: "d", Weight: 20}}; !slices.Equal(routes[2].Targets, want) {
		t.Errorf("%+v", routes[2].Targets)
	}
	wrong := slices.DeleteFunc(slices.Clone(problems), func(p route.Problem) bool { return p.Missing })
	if len(wrong) != 3 {
		t.Errorf("problems: %+v", wrong)
	}
	in.VirtualServices = nil
	if routes, _ := WaypointTCP(w, in); len(routes) != 1 || routes[0].Targets[0].Cluster != "w" {
		t.Errorf("default: %+v", routes)
	}
}

func TestReplacePrefix(t *testing.T) {
	at := func(path string) route.Path { return route.Path{Kind: route.PathSegments, Value: path} }
	for _, c := range []struct {
		value  string
		match  route.Path
		prefix string
		regex  bool
	}{
		{"/new", at("/old"), "/new", false},
		{"/new/", at("/old"), "/new", false},
		{"/", at("/old"), "", true},
		{"", at("/old"), "", true},
		{"/new", route.Path{}, "/new/", false},
		{"/", route.Path{}, "/", false},
	} {
		prefix, regex := replacePrefix(c.value, c.match)
		if prefix != c.prefix || (regex != nil) != c.regex {
			t.Errorf("%+v: %q %v", c, prefix, regex)
		}
	}
}

func TestPrecedence(t *testing.T) {
	header := []route.HeaderMatch{{Name: "a"}}
	method := []route.HeaderMatch{{Name: ":method"}}
	ordered := []route.Route{
		{Name: "exact", Match: route.Match{Path: route.Path{Kind: route.PathExact, Value: "/a"}}},
		{Name: "long", Match: route.Match{Path: route.Path{Kind: route.PathSegments, Value: "/a/b"}}},
		{Name: "method", Match: route.Match{Path: route.Path{Kind: route.PathSegments, Value: "/a"}, Headers: method}},
		{Name: "header", Match: route.Match{Path: route.Path{Kind: route.PathSegments, Value: "/a"}, Headers: header}},
		{Name: "query", Match: route.Match{Path: route.Path{Kind: route.PathSegments, Value: "/a"}, Query: []route.QueryMatch{{Name: "q"}}}},
		{Name: "first", Match: route.Match{Path: route.Path{Kind: route.PathSegments, Value: "/a"}}},
		{Name: "second", Match: route.Match{Path: route.Path{Kind: route.PathSegments, Value: "/a"}}},
		{Name: "any", Match: route.Match{}},
		{Name: "regex", Match: route.Match{Path: route.Path{Kind: route.PathRegex, Value: "/.*b"}}},
		{Name: "any method", Origin: route.Origin{Kind: kindGRPCRoute}, Match: route.Match{Headers: header}},
	}
	shuffled := []route.Route{ordered[9], ordered[8], ordered[5], ordered[7], ordered[4], ordered[6], ordered[2], ordered[0], ordered[3], ordered[1]}
	byPrecedence(shuffled)
	for i := range ordered {
		if shuffled[i].Name != ordered[i].Name {
			t.Errorf("%d: %s, want %s", i, shuffled[i].Name, ordered[i].Name)
		}
	}
}

func TestMergeMatch(t *testing.T) {
	prefix := func(p string) *networkingapi.HTTPMatchRequest {
		return &networkingapi.HTTPMatchRequest{Uri: &networkingapi.StringMatch{MatchType: &networkingapi.StringMatch_Prefix{Prefix: p}}}
	}
	exact := func(p string) *networkingapi.HTTPMatchRequest {
		return &networkingapi.HTTPMatchRequest{Uri: &networkingapi.StringMatch{MatchType: &networkingapi.StringMatch_Exact{Exact: p}}}
	}
	header := func(v string) *networkingapi.HTTPMatchRequest {
		return &networkingapi.HTTPMatchRequest{Headers: map[string]*networkingapi.StringMatch{"a": {MatchType: &networkingapi.StringMatch_Exact{Exact: v}}}}
	}
	headerPrefix := func(v string) *networkingapi.HTTPMatchRequest {
		return &networkingapi.HTTPMatchRequest{Headers: map[string]*networkingapi.StringMatch{"a": {MatchType: &networkingapi.StringMatch_Prefix{Prefix: v}}}}
	}
	labels := func(name, value string) *networkingapi.HTTPMatchRequest {
		return &networkingapi.HTTPMatchRequest{SourceLabels: map[string]string{name: value}}
	}
	for name, c := range map[string]struct {
		root, delegate *networkingapi.HTTPMatchRequest
		ok             bool
	}{
		"narrower prefix":    {prefix("/a"), prefix("/a/b"), true},
		"exact below":        {prefix("/a"), exact("/a/b"), true},
		"elsewhere":          {prefix("/a"), prefix("/b"), false},
		"below an exact one": {exact("/a"), prefix("/a/b"), false},
		"the same":           {exact("/a"), exact("/a"), true},
		"path and header":    {prefix("/a"), header("x"), true},
		"header and path":    {header("x"), prefix("/a"), true},
		"other values":       {header("x"), header("y"), false},
		"other ports":        {&networkingapi.HTTPMatchRequest{Port: 1}, &networkingapi.HTTPMatchRequest{Port: 2}, false},
		"narrower value":     {headerPrefix("x"), header("xy"), true},
		"wider value":        {header("xy"), headerPrefix("x"), false},
		"case":               {prefix("/a"), &networkingapi.HTTPMatchRequest{IgnoreUriCase: true}, false},
		"fewer gateways":     {&networkingapi.HTTPMatchRequest{Gateways: []string{"a", "b"}}, &networkingapi.HTTPMatchRequest{Gateways: []string{"a"}}, true},
		"other gateways":     {&networkingapi.HTTPMatchRequest{Gateways: []string{"a"}}, &networkingapi.HTTPMatchRequest{Gateways: []string{"a", "b"}}, false},
		"more labels":        {labels("a", "1"), labels("b", "1"), true},
		"other labels":       {labels("a", "1"), labels("a", "2"), false},
		"nothing":            {nil, prefix("/a"), true},
	} {
		if got := mergeMatch(c.root, c.delegate); (got != nil) != c.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParentServices(t *testing.T) {
	w := newWorld()
	w.add(&networkingv1.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: networkingapi.ServiceEntry{Hosts: []string{"a.test", "b.test"}}})
	core, istio, other := gatewayv1.Group(""), gatewayv1.Group(groupNetworking), gatewayv1.Namespace("other")
	service, entry := gatewayv1.Kind("Service"), gatewayv1.Kind("ServiceEntry")
	got := ParentServices(w, Mesh{Domain: "mesh.test"}, []gatewayv1.ParentReference{
		{Name: "gateway"},
		{Group: &core, Kind: &service, Name: "web", Namespace: &other},
		{Group: &istio, Kind: &entry, Name: "api"},
		{Group: &istio, Kind: &entry, Name: "none"},
	}, "default")
	if want := []string{"web.other.svc.mesh.test", "a.test", "b.test"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// What keeps a Gateway from being programmed, in the order in which it matters.
func TestGatewayConditions(t *testing.T) {
	address := []gatewayv1.GatewayStatusAddress{{Value: "10.0.0.1"}}
	listener := func(name string, port int32, protocol gatewayv1.ProtocolType) gatewayv1.Listener {
		return gatewayv1.Listener{Name: gatewayv1.SectionName(name), Port: port, Protocol: protocol}
	}
	for name, c := range map[string]struct {
		listeners            []gatewayv1.Listener
		state                GatewayState
		accepted, programmed string
	}{
		"ready":        {[]gatewayv1.Listener{listener("a", 80, "HTTP")}, GatewayState{Addresses: address, Ready: true}, "True Accepted", "True Programmed"},
		"waypoint":     {[]gatewayv1.Listener{listener("mesh", 15008, "HBONE")}, GatewayState{Addresses: address, Ready: true}, "True Accepted", "True Programmed"},
		"no address":   {[]gatewayv1.Listener{listener("a", 80, "HTTP")}, GatewayState{}, "True Accepted", "False AddressNotAssigned"},
		"no pod":       {[]gatewayv1.Listener{listener("a", 80, "HTTP")}, GatewayState{Addresses: address, Ready: false}, "True Accepted", "False Pending"},
		"HTTPS too":    {[]gatewayv1.Listener{listener("a", 80, "HTTP"), listener("b", 443, "HTTPS")}, GatewayState{Addresses: address, Ready: true}, "True ListenersNotValid", "True Programmed"},
		"HTTPS only":   {[]gatewayv1.Listener{listener("b", 443, "HTTPS")}, GatewayState{Addresses: address, Ready: true}, "True ListenersNotValid", "False Invalid"},
		"twice":        {[]gatewayv1.Listener{listener("a", 80, "HTTP"), listener("b", 80, "HTTP")}, GatewayState{Addresses: address, Ready: true}, "True ListenersNotValid", "True Programmed"},
		"refused":      {[]gatewayv1.Listener{listener("a", 80, "HTTP")}, GatewayState{Addresses: address, Ready: true, Problem: "x"}, "False InvalidParameters", "False Invalid"},
		"no listeners": {nil, GatewayState{Addresses: address, Ready: true}, "True Accepted", "True Programmed"},
	} {
		gw := &gatewayv1.Gateway{}
		gw.Spec.GatewayClassName, gw.Spec.Listeners = "istio", c.listeners
		s := GatewayStatus(newWorld(), gw, c.state, Routes{})
		text := func(c metav1.Condition) string { return string(c.Status) + " " + c.Reason }
		if a, p := text(s.Conditions[0]), text(s.Conditions[1]); a != c.accepted || p != c.programmed {
			t.Errorf("%s: %s, %s", name, a, p)
		}
	}
	gw := &gatewayv1.Gateway{}
	gw.Spec.GatewayClassName = "another"
	if GatewayStatus(newWorld(), gw, GatewayState{}, Routes{}) != nil {
		t.Error("a class of another controller")
	}
}
