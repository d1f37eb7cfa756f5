package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

// Syncs asks how far proxies have come; of a namespace, or all.
func (f *Flags) Syncs(ctx context.Context, s Source, namespace string) ([]dump.Sync, error) {
	answers, err := f.Ask(ctx, s, SynczType)
	if err != nil {
		return nil, err
	}
	var out []dump.Sync
	for _, a := range answers {
		all, err := a.Syncs()
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if namespace == "" || strings.HasSuffix(one.Name, "."+namespace) {
				out = append(out, one)
			}
		}
	}
	return out, nil
}

// Syncs reads an answer to SynczType.
func (a Answer) Syncs() ([]dump.Sync, error) {
	var out []dump.Sync
	for _, resource := range a.Response.GetResources() {
		config := &statusv3.ClientConfig{}
		if err := resource.UnmarshalTo(config); err != nil {
			return nil, fmt.Errorf("status of a proxy, from %s: %w", a.ID, err)
		}
		about := func(key string) string { return config.GetNode().GetMetadata().GetFields()[key].GetStringValue() }
		one := dump.Sync{Name: config.GetNode().GetId(), Cluster: about("CLUSTER_ID"), ControlBy: a.ID, Version: about("ISTIO_VERSION"), Types: map[string]dump.Type{}}
		if parts := strings.Split(one.Name, "~"); len(parts) == 4 {
			one.ProxyType, one.Name = parts[0], parts[2]
		}
		for _, c := range config.GetGenericXdsConfigs() {
			t := dump.Type{State: stateOf(c.GetConfigStatus()), Error: c.GetErrorState().GetDetails()}
			if at := c.GetLastUpdated(); at != nil {
				since := at.AsTime()
				t.Since = &since
			}
			one.Types[dump.ShortType(c.GetTypeUrl())] = t
		}
		if _, workloads := one.Types["WDS"]; workloads && one.ProxyType == "" {
			one.ProxyType = "ztunnel"
		}
		out = append(out, one)
	}
	return out, nil
}

func stateOf(s statusv3.ConfigStatus) string {
	switch s {
	case statusv3.ConfigStatus_SYNCED:
		return dump.Synced
	case statusv3.ConfigStatus_STALE:
		return dump.Stale
	case statusv3.ConfigStatus_ERROR:
		return dump.Refused
	default:
		return dump.NotSent
	}
}

// ConfigDump is what a proxy is to have; nil when no instance that was asked has it connected.
func (f *Flags) ConfigDump(ctx context.Context, s Source, proxy string) (*dump.Envoy, error) {
	answers, err := f.Ask(ctx, s, ConfigDumpType, proxy)
	var none *NotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := protojson.Marshal(&adminv3.ConfigDump{Configs: answers[0].Response.GetResources()})
	if err != nil {
		return nil, fmt.Errorf("configuration of %s, from %s: %w", proxy, answers[0].ID, err)
	}
	return dump.ReadEnvoy(data)
}

// Page is what an instance shows of itself.
type Page struct {
	From string
	Text []byte
}

// Pages asks for a debug page.
func (f *Flags) Pages(ctx context.Context, s Source, name string) ([]Page, error) {
	answers, err := f.Ask(ctx, s, PageType, name)
	if err != nil {
		return nil, err
	}
	var out []Page
	for _, a := range answers {
		for _, r := range a.Response.GetResources() {
			out = append(out, Page{From: a.ID, Text: r.GetValue()})
		}
	}
	return out, nil
}
