package plugin_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/isthmus-mesh/isthmus/cni/internal/plugin"
)

func TestParseConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		config   string
		socket   string   // DefaultSocket when empty
		excluded []string // namespaces
		ips      []string // nil when there is no result of the plugins before
	}{
		"everything": {
			config: `{"cniVersion":"1.0.0","name":"n","type":"istio-cni","plugin_event_socket":"/run/a.sock","exclude_namespaces":["a","b"],"prevResult":` + prevResult + `}`,
			socket: "/run/a.sock", excluded: []string{"a", "b"}, ips: []string{"10.244.1.5/24", "fd00::5/64"},
		},
		"nothing but a version": {config: `{"cniVersion":"1.0.0"}`},
		"nothing at all":        {config: `{}`},
		"empty fields":          {config: `{"cniVersion":"1.0.0","plugin_event_socket":"","exclude_namespaces":[]}`},
		"null fields":           {config: `{"cniVersion":"1.0.0","plugin_event_socket":null,"exclude_namespaces":null,"prevResult":null}`},
		"fields of others":      {config: `{"cniVersion":"1.0.0","log_level":"debug","ambient_enabled":true,"kubernetes":{"kubeconfig":"/k"}}`},
		"empty result":          {config: `{"cniVersion":"1.0.0","prevResult":{}}`, ips: []string{}},
		"result without its version": {
			config: `{"cniVersion":"0.4.0","prevResult":{"ips":[{"version":"4","address":"10.244.1.5/24"}]}}`, ips: []string{"10.244.1.5/24"},
		},
		"result of the first version": {
			config: `{"cniVersion":"0.2.0","prevResult":{"ip4":{"ip":"10.244.1.5/24"},"ip6":{"ip":"fd00::5/64"}}}`, ips: []string{"10.244.1.5/24", "fd00::5/64"},
		},
		"result of the newest version": {
			config: `{"cniVersion":"1.1.0","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","mtu":1400}],"ips":[{"address":"10.244.1.5/24"}]}}`, ips: []string{"10.244.1.5/24"},
		},
		// Whoever runs the plugin has refused it before; a DEL has no result to read.
		"version of the future without a result": {config: `{"cniVersion":"9.0.0"}`},
	} {
		t.Run(name, func(t *testing.T) {
			config, result, err := plugin.ParseConfig([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.socket
			if want == "" {
				want = plugin.DefaultSocket
			}
			if config.Socket != want || !slices.Equal(config.ExcludeNamespaces, tt.excluded) {
				t.Errorf("socket %q, want %q; excluded %q, want %q", config.Socket, want, config.ExcludeNamespaces, tt.excluded)
			}
			if (result != nil) != (tt.ips != nil) {
				t.Fatalf("result %v", result)
			}
			var ips []string
			if result != nil {
				for _, ip := range result.IPs {
					ips = append(ips, ip.Address.String())
				}
			}
			if !slices.Equal(ips, tt.ips) {
				t.Errorf("addresses %v, want %v", ips, tt.ips)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	const own, before = "network configuration of istio-cni", "result of the plugins before istio-cni"
	for name, tt := range map[string]struct{ config, subject, says string }{
		"nothing":                   {"", own, "unexpected end of JSON"},
		"half of it":                {`{"cniVersion":"1.0.0"`, own, "unexpected end of JSON"},
		"more than it":              {`{} {}`, own, "after top-level value"},
		"a list":                    {`[]`, own, "array"},
		"version not a text":        {`{"cniVersion":1}`, own, "cniVersion"},
		"socket not a text":         {`{"plugin_event_socket":{}}`, own, "plugin_event_socket"},
		"namespaces not a list":     {`{"exclude_namespaces":"kube-system"}`, own, "exclude_namespaces"},
		"result not an object":      {`{"cniVersion":"1.0.0","prevResult":[]}`, own, "prevResult"},
		"addresses not a list":      {`{"cniVersion":"1.0.0","prevResult":{"ips":7}}`, before, "ips"},
		"address not an address":    {`{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"10.0.0.300/24"}]}}`, before, "10.0.0.300/24"},
		"version of the future":     {`{"cniVersion":"9.0.0","prevResult":{}}`, before, "9.0.0"},
		"version not a version":     {`{"cniVersion":"one","prevResult":{}}`, before, "one"},
		"result of another version": {`{"cniVersion":"1.0.0","prevResult":{"cniVersion":"9.0.0"}}`, before, "9.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			config, result, err := plugin.ParseConfig([]byte(tt.config))
			var cniErr *types.Error
			if !errors.As(err, &cniErr) || cniErr.Code != types.ErrDecodingFailure || cniErr.Msg != tt.subject || !strings.Contains(cniErr.Details, tt.says) {
				t.Errorf("%v", err)
			}
			if config != nil || result != nil {
				t.Errorf("a configuration beside the error: %v, %v", config, result)
			}
		})
	}
}
