package route

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// bodyLimit is what Envoy allows a direct response unless told otherwise, maxBody what it is told at most.
	bodyLimit = 4096
	maxBody   = 1 << 20
)

// Envoy turns the model into Envoy's, in the order of the model. What Envoy's validation refuses is left out and named: a virtual
// host's domain that another has already, and a route as a whole.
func (c *Config) Envoy() (*routev3.RouteConfiguration, []Problem) {
	out := &routev3.RouteConfiguration{
		Name: strings.ToValidUTF8(c.Name, ""),
		// A route may come before its clusters: it answers 503 until they are there.
		ValidateClusters:         wrapperspb.Bool(false),
		IgnorePortInHostMatching: c.IgnorePort,
	}
	var problems []Problem
	taken := map[string]bool{}
	body := 0
	for i := range c.Hosts {
		host := &c.Hosts[i]
		vh := &routev3.VirtualHost{Name: strings.ToValidUTF8(host.Name, ""), IncludeRequestAttemptCount: true}
		for _, d := range host.Domains {
			if key := strings.ToLower(d); !taken[key] && utf8.ValidString(d) {
				taken[key] = true
				vh.Domains = append(vh.Domains, d)
			}
		}
		if len(vh.Domains) == 0 {
			continue
		}
		if host.RequireTLS {
			vh.RequireTls = routev3.VirtualHost_ALL
		}
		for j := range host.Routes {
			rt, err := host.Routes[j].envoy()
			if err != nil {
				problems = append(problems, Problem{Origin: host.Routes[j].Origin, Field: "route " + host.Routes[j].Name, Message: err.Error()})
				continue
			}
			vh.Routes = append(vh.Routes, rt)
			if d := host.Routes[j].Direct; d != nil {
				body = max(body, len(d.Body))
			}
		}
		out.VirtualHosts = append(out.VirtualHosts, vh)
	}
	if body > bodyLimit {
		out.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(maxBody)
	}
	return out, problems
}

func (r *Route) envoy() (*routev3.Route, error) {
	out := &routev3.Route{
		Name:                    r.Name,
		Match:                   r.Match.envoy(),
		Metadata:                r.Origin.metadata(),
		RequestHeadersToAdd:     r.Request.add(),
		RequestHeadersToRemove:  r.Request.Remove,
		ResponseHeadersToAdd:    r.Response.add(),
		ResponseHeadersToRemove: r.Response.Remove,
		StatPrefix:              r.StatPrefix,
	}
	switch {
	case r.Forward != nil:
		if len(weighted(r.Forward.Targets)) == 0 {
			return nil, errors.New("no target has a weight")
		}
		r.Forward.envoy(out)
	case r.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: r.Redirect.envoy()}
	case r.Direct != nil:
		out.Action = &routev3.Route_DirectResponse{
			DirectResponse: &routev3.DirectResponseAction{Status: r.Direct.Status, Body: dataSource(r.Direct.Body)},
		}
	default:
		return nil, errors.New("the route does nothing")
	}
	if r.Decorator != "" {
		out.Decorator = &routev3.Decorator{Operation: r.Decorator}
	}
	if err := r.finish(out); err != nil {
		return nil, err
	}
	return out, nil
}

// finish adds what filters read of the route, and judges the whole.
func (r *Route) finish(out *routev3.Route) error {
	filters := map[string]proto.Message{}
	if r.Fault != nil {
		filters[FaultFilter] = r.Fault.envoy()
	}
	if r.CORS != nil {
		filters[CORSFilter] = r.CORS.envoy()
	}
	if s := r.Forward.session(); s != nil {
		filters[SessionFilter] = s.envoy()
	}
	for name, m := range filters {
		if v, ok := m.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				return err
			}
		}
		packed := mustAny(m)
		if packed == nil {
			return fmt.Errorf("the configuration of %s cannot be encoded", name)
		}
		if out.TypedPerFilterConfig == nil {
			out.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		out.TypedPerFilterConfig[name] = packed
	}
	if err := out.ValidateAll(); err != nil {
		return err
	}
	// A string that is no UTF-8 would make the whole configuration impossible to send.
	_, err := proto.Marshal(out)
	return err
}

func dataSource(body []byte) *corev3.DataSource {
	switch {
	case len(body) == 0:
		return nil
	case utf8.Valid(body):
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(body)}}
	}
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: body}}
}

// Path is the object's in the API of Kubernetes: what Istio's dumps show of a route.
func (o Origin) Path() string {
	return "/apis/" + o.Group + "/" + o.Version + "/namespaces/" + o.Namespace + "/" + kebab(o.Kind) + "/" + o.Name
}

func (o Origin) metadata() *corev3.Metadata {
	if o.Kind == "" {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		"istio": {Fields: map[string]*structpb.Value{"config": structpb.NewStringValue(o.Path())}},
	}}
}

// kebab writes VirtualService as virtual-service, HTTPRoute as http-route.
func kebab(kind string) string {
	var out strings.Builder
	upper := func(i int) bool { return i >= 0 && i < len(kind) && kind[i] >= 'A' && kind[i] <= 'Z' }
	for i := range len(kind) {
		// A word begins at a capital after a small letter, or at the last capital of a row of them.
		if i > 0 && upper(i) && (!upper(i-1) || i+1 < len(kind) && !upper(i+1)) {
			out.WriteByte('-')
		}
		out.WriteByte(kind[i])
	}
	return strings.ToLower(out.String())
}

// Operation is what a decorator says of a route: whom it goes to, and by which path.
func Operation(host string, port string, path Path) string { return host + ":" + port + path.text() }
