package debug

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

const configDumpHelp = "what a connected proxy is to have, as Envoy shows what it has: ?proxyID=POD.NAMESPACE, with &include_eds its endpoints, too"

// configDump is the answer to /debug/config_dump.
func (s *Server) configDump(query url.Values) (json.RawMessage, error) {
	dump, err := s.dumpOf(query.Get("proxyID"), query.Has("include_eds"))
	if err != nil {
		return nil, err
	}
	// Names are as proxies write them.
	out, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(dump)
	if err != nil {
		return nil, fmt.Errorf("marshal what %s is to have: %w", query.Get("proxyID"), err)
	}
	return out, nil
}

// client is the connection of a proxy: the newest, as one that reconnects may have two for a while.
func (s *Server) client(proxy string) (server.ClientStatus, error) {
	if proxy == "" {
		return server.ClientStatus{}, &problem{http.StatusBadRequest, "which proxy: name it by ?proxyID=POD.NAMESPACE"}
	}
	all := s.proxies()
	for i := len(all) - 1; i >= 0; i-- {
		if _, name := proxyName(all[i].Node); name == proxy {
			return all[i], nil
		}
	}
	return server.ClientStatus{}, &problem{http.StatusNotFound, fmt.Sprintf("%s is not connected to this instance of the control plane; /debug/connections has those that are", proxy)}
}

func (s *Server) dumpOf(proxy string, endpoints bool) (*adminv3.ConfigDump, error) {
	client, err := s.client(proxy)
	if err != nil {
		return nil, err
	}
	if kind, _ := proxyName(client.Node); kind == "ztunnel" {
		return nil, &problem{http.StatusBadRequest, proxy + " is a ztunnel, which has no configuration of Envoy's kind: /debug/ambientz has what it is to have"}
	}
	all, connected := s.Configurations(client.ConnectionID)
	if !connected {
		return nil, &problem{http.StatusNotFound, proxy + " has just disconnected"}
	}
	d := &dumper{}
	for _, c := range all {
		var sent *timestamppb.Timestamp
		for _, t := range client.Types {
			if t.TypeURL == c.TypeURL && !t.SentTime.IsZero() {
				sent = timestamppb.New(t.SentTime)
			}
		}
		for _, r := range c.Resources {
			if err := d.add(c.TypeURL, r, sent); err != nil {
				return nil, err
			}
		}
	}
	return d.dump(endpoints)
}

// dumper collects the sections of a dump.
type dumper struct {
	clusters   adminv3.ClustersConfigDump
	endpoints  adminv3.EndpointsConfigDump
	listeners  adminv3.ListenersConfigDump
	routes     adminv3.RoutesConfigDump
	secrets    adminv3.SecretsConfigDump
	extensions adminv3.EcdsConfigDump
}

func (d *dumper) add(typeURL string, r server.Resource, sent *timestamppb.Timestamp) error {
	content, err := withoutSecrets(r.Any)
	if err != nil {
		return fmt.Errorf("%s %q: %w", typeURL, r.Name, err)
	}
	switch typeURL[strings.LastIndexByte(typeURL, '.')+1:] {
	case "Cluster":
		d.clusters.DynamicActiveClusters = append(d.clusters.DynamicActiveClusters, &adminv3.ClustersConfigDump_DynamicCluster{
			VersionInfo: r.Version, Cluster: content, LastUpdated: sent,
		})
	case "ClusterLoadAssignment":
		d.endpoints.DynamicEndpointConfigs = append(d.endpoints.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: r.Version, EndpointConfig: content, LastUpdated: sent,
		})
	case "Listener":
		d.listeners.DynamicListeners = append(d.listeners.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
			Name: r.Name, ActiveState: &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: r.Version, Listener: content, LastUpdated: sent},
		})
	case "RouteConfiguration":
		d.routes.DynamicRouteConfigs = append(d.routes.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			VersionInfo: r.Version, RouteConfig: content, LastUpdated: sent,
		})
	case "Secret":
		d.secrets.DynamicActiveSecrets = append(d.secrets.DynamicActiveSecrets, &adminv3.SecretsConfigDump_DynamicSecret{
			Name: r.Name, VersionInfo: r.Version, Secret: content, LastUpdated: sent,
		})
	case "TypedExtensionConfig":
		d.extensions.EcdsFilters = append(d.extensions.EcdsFilters, &adminv3.EcdsConfigDump_EcdsFilterConfig{
			VersionInfo: r.Version, EcdsFilter: content, LastUpdated: sent,
		})
	}
	return nil
}

// dump has the sections in Envoy's order.
func (d *dumper) dump(endpoints bool) (*adminv3.ConfigDump, error) {
	sections := []proto.Message{&d.clusters}
	if endpoints {
		sections = append(sections, &d.endpoints)
	}
	sections = append(sections, &d.listeners, &adminv3.ScopedRoutesConfigDump{}, &d.routes, &d.secrets, &d.extensions)
	out := &adminv3.ConfigDump{}
	for _, section := range sections {
		packed, err := anypb.New(section)
		if err != nil {
			return nil, fmt.Errorf("marshal a section: %w", err)
		}
		out.Configs = append(out.Configs, packed)
	}
	return out, nil
}

// configDumpResources answers tools that ask by xDS: the name is the proxy's.
func (s *Server) configDumpResources(r *discovery.DiscoveryRequest) ([]*anypb.Any, error) {
	name, err := onlyName(r)
	if err != nil {
		return nil, err
	}
	dump, err := s.dumpOf(name, false)
	if err != nil {
		return nil, err
	}
	return dump.GetConfigs(), nil
}
