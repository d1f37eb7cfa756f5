package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

// parseProxyConfig reads PROXY_CONFIG, which is YAML or JSON, over Istio's defaults.
func parseProxyConfig(text string) (*meshconfig.ProxyConfig, error) {
	given := &meshconfig.ProxyConfig{}
	if strings.TrimSpace(text) != "" {
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("not YAML: %w", err)
		}
		if string(raw) != "null" {
			if err := protojson.Unmarshal(raw, given); err != nil {
				return nil, fmt.Errorf("not a ProxyConfig: %w", err)
			}
		}
	}
	out := given
	if out.DiscoveryAddress == "" {
		out.DiscoveryAddress = "istiod.istio-system.svc:15012"
	}
	if out.DrainDuration == nil {
		out.DrainDuration = durationpb.New(45 * time.Second)
	}
	if out.TerminationDrainDuration == nil {
		out.TerminationDrainDuration = durationpb.New(5 * time.Second)
	}
	if out.ProxyAdminPort == 0 {
		out.ProxyAdminPort = 15000
	}
	if out.StatusPort == 0 {
		out.StatusPort = 15020
	}
	return out, nil
}

// honoured are the fields of ProxyConfig that change something here, with our engine or with Envoy.
func honoured() []protoreflect.Name {
	return []protoreflect.Name{
		"discovery_address", "drain_duration", "termination_drain_duration", "proxy_admin_port", "status_port", "concurrency",
		"proxy_metadata", "control_plane_auth_policy",
		// Written into every ProxyConfig by installers; they name what is the case anyway.
		"config_path", "binary_path", "service_cluster", "cluster_name",
	}
}

// ineffective names the fields that are set and change nothing.
func ineffective(c *meshconfig.ProxyConfig) []string {
	var out []string
	c.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(honoured(), field.Name()) {
			out = append(out, fmt.Sprintf("PROXY_CONFIG: the field %s has no effect", field.JSONName()))
		}
		return true
	})
	slices.Sort(out)
	return out
}
