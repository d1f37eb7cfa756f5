package admin

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/agent"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
)

// configDump answers /config_dump.
func (s *Server) configDump(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Has("mask") {
		http.Error(w, "mask is not supported; use resource and name_regex", http.StatusBadRequest)
		return
	}
	var matcher *regexp.Regexp
	if pattern := query.Get("name_regex"); pattern != "" {
		var err error
		if matcher, err = regexp.Compile(`^(?:` + pattern + `)$`); err != nil {
			http.Error(w, "name_regex: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	d := &dumper{server: s, snapshot: s.Snapshot(), match: func(name string) bool { return matcher == nil || matcher.MatchString(name) }}
	sections := d.sections(query.Has("include_eds"))
	dump := &adminv3.ConfigDump{}
	var err error
	if resource := query.Get("resource"); resource != "" {
		dump.Configs, err = pick(sections, resource)
	} else {
		for _, section := range sections {
			dump.Configs = append(dump.Configs, d.any(section))
		}
	}
	if err = errors.Join(err, errors.Join(d.problems...)); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	s.json(w, dump)
}

// pick returns the elements of the field of that name in whichever section has it.
func pick(sections []proto.Message, resource string) ([]*anypb.Any, error) {
	for _, section := range sections {
		m := section.ProtoReflect()
		field := m.Descriptor().Fields().ByName(protoreflect.Name(resource))
		if field == nil || field.Message() == nil {
			continue
		}
		var out []*anypb.Any
		add := func(element protoreflect.Message) error {
			packed, err := anypb.New(element.Interface())
			out = append(out, packed)
			return err
		}
		if !field.IsList() {
			return out, add(m.Get(field).Message())
		}
		var problems []error
		for i := range m.Get(field).List().Len() {
			problems = append(problems, add(m.Get(field).List().Get(i).Message()))
		}
		return out, errors.Join(problems...)
	}
	return nil, fmt.Errorf("%s not found in config dump", resource)
}

// dumper makes the sections of one dump.
type dumper struct {
	server   *Server
	snapshot xds.Snapshot
	match    func(name string) bool
	problems []error
}

func (d *dumper) any(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		d.problems = append(d.problems, err)
	}
	return out
}

// sections are in Envoy's order.
func (d *dumper) sections(endpoints bool) []proto.Message {
	out := []proto.Message{
		&adminv3.BootstrapConfigDump{Bootstrap: d.server.Bootstrap, LastUpdated: timestamppb.New(d.server.Started)},
		d.clusters(),
	}
	if endpoints {
		out = append(out, d.endpoints())
	}
	return append(out, d.listeners(), &adminv3.ScopedRoutesConfigDump{}, d.routes(), d.secrets())
}

func (d *dumper) clusters() *adminv3.ClustersConfigDump {
	out := &adminv3.ClustersConfigDump{}
	for _, c := range d.server.Bootstrap.GetStaticResources().GetClusters() {
		if d.match(c.GetName()) {
			out.StaticClusters = append(out.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{Cluster: d.any(c), LastUpdated: timestamppb.New(d.server.Started)})
		}
	}
	for _, r := range d.snapshot.Clusters {
		if !d.match(r.Name) {
			continue
		}
		state := func(v *xds.Revision) *adminv3.ClustersConfigDump_DynamicCluster {
			return &adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: v.Version, Cluster: v.Content, LastUpdated: timestamppb.New(v.Updated)}
		}
		if r.Active != nil {
			active := state(r.Active)
			active.ErrorState = failure(r.Failure)
			out.DynamicActiveClusters = append(out.DynamicActiveClusters, active)
		}
		if r.Warming != nil {
			out.DynamicWarmingClusters = append(out.DynamicWarmingClusters, state(r.Warming))
		}
	}
	return out
}

func (d *dumper) endpoints() *adminv3.EndpointsConfigDump {
	out := &adminv3.EndpointsConfigDump{}
	for _, c := range d.server.Bootstrap.GetStaticResources().GetClusters() {
		if d.match(c.GetName()) {
			out.StaticEndpointConfigs = append(out.StaticEndpointConfigs, &adminv3.EndpointsConfigDump_StaticEndpointConfig{
				EndpointConfig: d.any(c.GetLoadAssignment()), LastUpdated: timestamppb.New(d.server.Started),
			})
		}
	}
	for _, r := range d.snapshot.Endpoints {
		if r.Active != nil && d.match(r.Name) {
			out.DynamicEndpointConfigs = append(out.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
				VersionInfo: r.Active.Version, EndpointConfig: r.Active.Content, LastUpdated: timestamppb.New(r.Active.Updated), ErrorState: failure(r.Failure),
			})
		}
	}
	return out
}

func (d *dumper) listeners() *adminv3.ListenersConfigDump {
	out := &adminv3.ListenersConfigDump{}
	for _, l := range d.server.Bootstrap.GetStaticResources().GetListeners() {
		if d.match(l.GetName()) {
			out.StaticListeners = append(out.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{Listener: d.any(l), LastUpdated: timestamppb.New(d.server.Started)})
		}
	}
	state := func(v *xds.Revision) *adminv3.ListenersConfigDump_DynamicListenerState {
		if v == nil {
			return nil
		}
		return &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: v.Version, Listener: v.Content, LastUpdated: timestamppb.New(v.Updated)}
	}
	for _, r := range d.snapshot.Listeners {
		if d.match(r.Name) {
			out.DynamicListeners = append(out.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
				Name: r.Name, ActiveState: state(r.Active), WarmingState: state(r.Warming), ErrorState: failure(r.Failure),
			})
		}
	}
	return out
}

func (d *dumper) routes() *adminv3.RoutesConfigDump {
	out := &adminv3.RoutesConfigDump{}
	for _, r := range d.snapshot.Listeners {
		if r.Active == nil {
			continue
		}
		for _, config := range inlineRoutes(r.Active.Content) {
			if d.match(config.GetName()) {
				out.StaticRouteConfigs = append(out.StaticRouteConfigs, &adminv3.RoutesConfigDump_StaticRouteConfig{
					RouteConfig: d.any(config), LastUpdated: timestamppb.New(r.Active.Updated),
				})
			}
		}
	}
	for _, r := range d.snapshot.Routes {
		if r.Active != nil && d.match(r.Name) {
			out.DynamicRouteConfigs = append(out.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
				VersionInfo: r.Active.Version, RouteConfig: r.Active.Content, LastUpdated: timestamppb.New(r.Active.Updated), ErrorState: failure(r.Failure),
			})
		}
	}
	return out
}

// inlineRoutes are the route configurations that a listener brings along, each content once.
func inlineRoutes(content *anypb.Any) []*routev3.RouteConfiguration {
	listener := &listenerv3.Listener{}
	if content.UnmarshalTo(listener) != nil {
		return nil // it was read before
	}
	var out []*routev3.RouteConfiguration
	for _, chain := range append(slices.Clone(listener.GetFilterChains()), listener.GetDefaultFilterChain()) {
		for _, filter := range chain.GetFilters() {
			manager := &hcmv3.HttpConnectionManager{}
			if !filter.GetTypedConfig().MessageIs(manager) || filter.GetTypedConfig().UnmarshalTo(manager) != nil {
				continue
			}
			inline := manager.GetRouteConfig()
			if inline != nil && !slices.ContainsFunc(out, func(o *routev3.RouteConfiguration) bool { return proto.Equal(o, inline) }) {
				out = append(out, inline)
			}
		}
	}
	return out
}

func (d *dumper) secrets() *adminv3.SecretsConfigDump {
	out := &adminv3.SecretsConfigDump{}
	for _, state := range d.server.Certificates() {
		for _, name := range []string{agent.SecretIdentity, agent.SecretRoots} {
			if !d.match(name) {
				continue
			}
			entry := &adminv3.SecretsConfigDump_DynamicSecret{Name: name, VersionInfo: "uninitialized", LastUpdated: timestamppb.New(d.server.Started)}
			if state.Workload == nil {
				out.DynamicWarmingSecrets = append(out.DynamicWarmingSecrets, entry)
				continue
			}
			secret, version, err := agent.Secret(name, state.Workload, false)
			if err != nil {
				d.problems = append(d.problems, err)
				continue
			}
			entry.Secret, entry.VersionInfo, entry.LastUpdated = d.any(secret), version, timestamppb.New(state.Workload.NotBefore())
			out.DynamicActiveSecrets = append(out.DynamicActiveSecrets, entry)
		}
	}
	for _, r := range d.snapshot.Secrets {
		if !d.match(r.Name) || r.Active == nil && r.Failure == nil {
			continue
		}
		entry := &adminv3.SecretsConfigDump_DynamicSecret{Name: r.Name, ErrorState: failure(r.Failure)}
		if r.Active != nil {
			entry.VersionInfo, entry.LastUpdated = r.Active.Version, timestamppb.New(r.Active.Updated)
			entry.Secret = d.any(agent.Redacted(r.Name, r.Table.Certificate, r.Table.Authorities))
		}
		out.DynamicActiveSecrets = append(out.DynamicActiveSecrets, entry)
	}
	return out
}

// failure shows a refused version. Its content is left out when it has types that this proxy does not know.
func failure(f *xds.Failure) *adminv3.UpdateFailureState {
	if f == nil {
		return nil
	}
	out := &adminv3.UpdateFailureState{
		FailedConfiguration: f.Content, LastUpdateAttempt: timestamppb.New(f.Updated), Details: f.Details, VersionInfo: f.Version,
	}
	if _, err := marshaler().Marshal(out); err != nil {
		out.FailedConfiguration = nil
		out.Details = strings.Join([]string{out.GetDetails(), "(not shown: " + err.Error() + ")"}, " ")
	}
	return out
}
