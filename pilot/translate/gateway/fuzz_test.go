package gateway

import (
	"math"
	"reflect"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// entropy turns fuzzed bytes into choices.
type entropy struct {
	data []byte
	// words are the values that mean something, by type or field.
	words map[string][]string
}

func (e *entropy) next() byte {
	if len(e.data) == 0 {
		return 0
	}
	b := e.data[0]
	e.data = e.data[1:]
	return b
}

func (e *entropy) below(n int) int { return int(e.next()) % n }

// text is a word that means something to a translator, or whatever bytes come next.
func (e *entropy) text() string {
	words := []string{
		"", "*", ".*", "/", "/a", "/a/", "/a(b", "a", "web", "web.default.svc.cluster.local", "*.default.svc.cluster.local", "mesh",
		"gw", "default", "Host", ":authority", ":path", "x-a", "GET", "%REQ(a)%", "%", "100%", `\1`, "(a)|b", "http", "https", "5xx,503",
		"retriable-status-codes", "UNAVAILABLE", "v1", "1s", "x", "a\nb", "http://*", "*.example.com", "foo.example.com", "~", ".",
	}
	i := e.below(len(words) + 8)
	if i < len(words) {
		return words[i]
	}
	n := min(e.below(12), len(e.data))
	out := string(e.data[:n])
	e.data = e.data[n:]
	return out
}

func (e *entropy) number() int64 {
	numbers := []int64{0, 1, -1, 80, 100, 200, 301, 404, 503, 599, 600, 65535, 65536, math.MaxInt32, math.MinInt32, 50}
	return numbers[e.below(len(numbers))]
}

// message fills fields of a protobuf message.
func (e *entropy) message(m protoreflect.Message, depth int) {
	if len(e.data) == 0 || depth > 8 {
		return
	}
	fields := m.Descriptor().Fields()
	for range 1 + e.below(6) {
		f := fields.Get(e.below(fields.Len()))
		switch {
		case f.IsMap():
			key := protoreflect.ValueOfString(e.text()).MapKey()
			if f.MapKey().Kind() != protoreflect.StringKind {
				continue
			}
			v := m.Mutable(f).Map().NewValue()
			if f.MapValue().Message() != nil {
				e.message(v.Message(), depth+1)
			} else {
				v = e.scalar(f.MapValue())
			}
			m.Mutable(f).Map().Set(key, v)
		case f.IsList():
			for range 1 + e.below(3) {
				if f.Message() != nil {
					v := m.Mutable(f).List().NewElement()
					e.message(v.Message(), depth+1)
					m.Mutable(f).List().Append(v)
				} else {
					m.Mutable(f).List().Append(e.scalar(f))
				}
			}
		case f.Message() != nil:
			e.message(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, e.scalar(f))
		}
	}
}

func (e *entropy) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(e.below(2) == 1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(e.word(string(f.Name())))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(e.text()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(e.number() / 7)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(e.number()))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(e.number()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(e.number()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(e.number()) / 3)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(e.below(7)))
	default:
		return protoreflect.ValueOfInt32(int32(e.number()))
	}
}

// value fills a Go value of the Gateway API.
func (e *entropy) value(v reflect.Value, depth int) {
	if len(e.data) == 0 || depth > 12 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if e.below(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			e.value(v.Elem(), depth+1)
		}
	case reflect.Slice:
		n := e.below(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			e.value(v.Index(i), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			e.value(v.Field(i), depth+1)
		}
	case reflect.String:
		v.SetString(e.word(v.Type().Name()))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(e.number())
	case reflect.Bool:
		v.SetBool(e.below(2) == 1)
	}
}

// word is a value that means something more often than not.
func (e *entropy) word(kind string) string {
	if words := e.words[kind]; len(words) > 0 && e.below(8) > 0 {
		return words[e.below(len(words))]
	}
	return e.text()
}

func vocabulary() map[string][]string {
	return map[string][]string{
		"HTTPRouteFilterType": {
			"RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExtensionRef",
		},
		"GRPCRouteFilterType":  {"RequestHeaderModifier", "RequestMirror"},
		"PathMatchType":        {"Exact", "PathPrefix", "RegularExpression"},
		"HeaderMatchType":      {"Exact", "RegularExpression"},
		"QueryParamMatchType":  {"Exact", "RegularExpression"},
		"GRPCMethodMatchType":  {"Exact", "RegularExpression"},
		"HTTPPathModifierType": {"ReplaceFullPath", "ReplacePrefixMatch"},
		"Kind":                 {"Service", "ServiceEntry", "Hostname", "Gateway"},
		"Group":                {"", "networking.istio.io", "gateway.networking.k8s.io"},
		"ObjectName":           {"web", "gw", "entry"},
		"Namespace":            {"default", "other"},
		"ProtocolType":         {"HTTP", "HTTPS", "TLS", "TCP", "HBONE"},
		"FromNamespaces":       {"All", "Same", "Selector", "None"},
		"HTTPHeaderName":       {"x-a", "X-B", "host"},
		"GRPCHeaderName":       {"x-a", "X-B"},
		"Duration":             {"1s", "10ms", "0s"},
		"Hostname":             {"*.example.com", "foo.example.com", ""},
		"host":                 {"web", "web.default.svc.cluster.local", "missing"},
		"regex":                {"a+", "(?i)/x.*", ".*", "/(a)(b)?", `\d{3}`},
		"match":                {"/(a)(b)?", "^/(.*)$"},
		"rewrite":              {`/\1`, `/x`, `/\0\\`},
		"exact":                {"/a", "b", ""},
		"prefix":               {"/a", "/", "b"},
		"uri":                  {"/b", "/"},
		"scheme":               {"http", "https", ""},
		"authority":            {"a.test", ""},
		"retry_on":             {"5xx,503", "connect-failure", "gateway-error,409"},
		"protocol":             {"HTTP", "HTTPS", "TLS", "TCP"},
		"hosts":                {"*", "*/foo.example.com", "./web", "default/*.example.com"},
		"subset":               {"", "v1"},
		"name":                 {"a", "x-a", "v1"},
		"http_header_name":     {"x-a"},
		"namespace":            {"", "default"},
	}
}

// FuzzTranslate makes objects of the bytes: no translation panics, and what comes out is always something that Envoy's own rules
// allow, that can be encoded, and that is the same the second time.
func FuzzTranslate(f *testing.F) {
	for i := range 40 {
		seed := make([]byte, 900)
		for j := range seed {
			seed[j] = byte((j*(2*i+3) + i*i*7 + j*j) % 251)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first := translateAll(data)
		for i, config := range translateAll(data) {
			if !proto.Equal(first[i], config) {
				t.Errorf("%s differs the second time", config.GetName())
			}
		}
		for _, config := range first {
			if err := config.ValidateAll(); err != nil {
				t.Errorf("%v\n%v", err, config)
			}
			if _, err := proto.Marshal(config); err != nil {
				t.Error(err)
			}
		}
	})
}

func translateAll(data []byte) []*routev3.RouteConfiguration {
	// Every object has a part of the bytes, so that a change of one leaves the others.
	e, part := &entropy{words: vocabulary()}, len(data)/9
	share := func() {
		e.data, data = data[:part], data[part:]
	}
	w := newWorld()
	port := corev1.ServicePort{Name: "http", Port: 80}
	w.add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{port}}})
	for _, name := range []string{"a", "b"} {
		share()
		vs := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		e.message(vs.Spec.ProtoReflect(), 0)
		for range 4 {
			in := &networkingapi.HTTPRoute{Route: []*networkingapi.HTTPRouteDestination{{Destination: &networkingapi.Destination{Host: "web"}}}}
			if e.message(in.ProtoReflect(), 0); e.below(4) > 0 {
				in.Delegate = nil
			}
			vs.Spec.Http = append(vs.Spec.Http, in)
		}
		if e.below(4) > 0 {
			vs.Spec.Hosts, vs.Spec.ExportTo = []string{"web", "*"}, nil
			vs.Spec.Gateways = []string{"mesh", "edge"}
		}
		w.add(vs)
		share()
		h := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: name}}
		e.value(reflect.ValueOf(&h.Spec).Elem(), 0)
		share()
		g := &gatewayv1.GRPCRoute{ObjectMeta: metav1.ObjectMeta{Name: name}}
		e.value(reflect.ValueOf(&g.Spec).Elem(), 0)
		w.add(h)
		w.add(g)
	}
	share()
	rule := &networkingv1.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	e.message(rule.Spec.ProtoReflect(), 0)
	rule.Spec.Host = "web"
	w.add(rule)
	share()
	classic := &networkingv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}
	e.message(classic.Spec.ProtoReflect(), 0)
	classic.Spec.Selector = nil
	w.add(classic)
	share()
	gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "gw"}}
	e.value(reflect.ValueOf(&gw.Spec).Elem(), 0)
	w.add(gw)

	var out []*routev3.RouteConfiguration
	in := w.waypointInput("default/waypoint", "web.default.svc.cluster.local", 80)
	config, problems := WaypointRoutes(w, in)
	out = append(out, config)
	WaypointTCP(w, in)
	for _, words := range [][]string{{"a=b"}, {"gateway.networking.k8s.io/gateway-name=gw"}} {
		_, configs, more := GatewayConfig(w, w.gatewayInput("default", words))
		out, problems = append(out, configs...), append(problems, more...)
	}
	statusesOf(w, problems)
	return out
}

func statusesOf(w *world, problems []route.Problem) {
	w.statuses()
	for _, vs := range w.virtual {
		VirtualServiceStatus(w, Mesh{}, vs, problems)
	}
}
