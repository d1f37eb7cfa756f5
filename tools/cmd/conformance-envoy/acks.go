package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// configDump is Envoy's /config_dump as far as it is looked at.
type configDump struct {
	Configs []struct {
		Type                   string          `json:"@type"`
		Bootstrap              bootstrapDump   `json:"bootstrap"`
		DynamicListeners       []listenerDump  `json:"dynamic_listeners"`
		DynamicActiveClusters  []resourceDump  `json:"dynamic_active_clusters"`
		DynamicWarmingClusters []resourceDump  `json:"dynamic_warming_clusters"`
		DynamicRouteConfigs    []resourceDump  `json:"dynamic_route_configs"`
		DynamicEndpointConfigs []resourceDump  `json:"dynamic_endpoint_configs"`
		DynamicActiveSecrets   json.RawMessage `json:"dynamic_active_secrets"`
	} `json:"configs"`
}

type bootstrapDump struct {
	Node struct {
		Extensions []struct {
			Name     string   `json:"name"`
			TypeURLs []string `json:"type_urls"`
		} `json:"extensions"`
	} `json:"node"`
}

type listenerDump struct {
	Name         string        `json:"name"`
	ActiveState  *resourceDump `json:"active_state"`
	WarmingState *resourceDump `json:"warming_state"`
	ErrorState   *errorState   `json:"error_state"`
}

type resourceDump struct {
	VersionInfo    string          `json:"version_info"`
	Listener       json.RawMessage `json:"listener"`
	Cluster        json.RawMessage `json:"cluster"`
	RouteConfig    json.RawMessage `json:"route_config"`
	EndpointConfig json.RawMessage `json:"endpoint_config"`
	ErrorState     *errorState     `json:"error_state"`
}

type errorState struct {
	Details string `json:"details"`
}

func (b *testbed) configOf(ctx context.Context, p *proxy) (*configDump, error) {
	text, err := p.get(ctx, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	out := &configDump{}
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", p.pod, err)
	}
	return out, nil
}

// checkACKs looks at what each Envoy has taken and refused.
func (b *testbed) checkACKs(ctx context.Context, f *fixture, report *report) error {
	for _, way := range ways() {
		if !f.uses(way) {
			continue
		}
		p := b.proxies[way][0]
		var wrong []string
		var dump *configDump
		deadline := time.Now().Add(30 * time.Second)
		for {
			var err error
			if dump, err = b.configOf(ctx, p); err != nil {
				return err
			}
			if wrong = dump.unsettled(); len(wrong) == 0 || time.Now().After(deadline) {
				break
			}
			pause(ctx, 50*time.Millisecond)
		}
		for _, w := range wrong {
			report.problem("%s: %s: %s", f.name, p.pod, w)
		}
		rejected, err := b.rejected(ctx, p)
		if err != nil {
			return err
		}
		for _, r := range rejected {
			report.problem("%s: %s has refused an update: %s", f.name, p.pod, r)
		}
		for _, key := range dump.resources() {
			b.acked[key] = true
		}
	}
	return nil
}

// unsettled names what is refused or not in force yet.
func (d *configDump) unsettled() []string {
	var out []string
	refused := func(kind, name string, e *errorState) {
		if e != nil {
			out = append(out, kind+" "+name+" is refused: "+e.Details)
		}
	}
	for _, c := range d.Configs {
		for _, l := range c.DynamicListeners {
			refused("listener", l.Name, l.ErrorState)
			if l.WarmingState != nil {
				out = append(out, "listener "+l.Name+" is warming")
			}
		}
		for _, w := range c.DynamicWarmingClusters {
			out = append(out, "cluster "+nameOf(w.Cluster)+" is warming")
		}
		for _, r := range slices.Concat(c.DynamicActiveClusters, c.DynamicRouteConfigs, c.DynamicEndpointConfigs) {
			refused("resource", nameOf(r.body()), r.ErrorState)
		}
	}
	return out
}

// resources are keys of all that is in force, by content.
func (d *configDump) resources() []string {
	var out []string
	add := func(kind string, body json.RawMessage) {
		if len(body) > 0 {
			out = append(out, fmt.Sprintf("%s %s %x", kind, nameOf(body), sha256.Sum256(body)))
		}
	}
	for _, c := range d.Configs {
		for _, l := range c.DynamicListeners {
			if l.ActiveState != nil {
				add("listener", l.ActiveState.Listener)
			}
		}
		for _, r := range slices.Concat(c.DynamicActiveClusters, c.DynamicRouteConfigs, c.DynamicEndpointConfigs) {
			add("resource", r.body())
		}
	}
	return out
}

func (r resourceDump) body() json.RawMessage {
	for _, b := range []json.RawMessage{r.Cluster, r.RouteConfig, r.EndpointConfig, r.Listener} {
		if len(b) > 0 {
			return b
		}
	}
	return nil
}

func nameOf(body json.RawMessage) string {
	var named struct {
		Type        string `json:"@type"`
		Name        string `json:"name"`
		ClusterName string `json:"cluster_name"`
	}
	if json.Unmarshal(body, &named) != nil {
		return "?"
	}
	return named.Type[strings.LastIndex(named.Type, ".")+1:] + " " + named.Name + named.ClusterName
}

// rejected are the counters of refused updates that have risen since the last call.
func (b *testbed) rejected(ctx context.Context, p *proxy) ([]string, error) {
	text, err := p.get(ctx, "/stats?filter=update_rejected&usedonly")
	if err != nil {
		return nil, err
	}
	if p.rejected == nil {
		p.rejected = map[string]int{}
	}
	var out []string
	for _, l := range strings.Split(string(text), "\n") {
		name, count, ok := strings.Cut(l, ": ")
		n, err := strconv.Atoi(strings.TrimSpace(count))
		if !ok || err != nil {
			continue
		}
		if n > p.rejected[name] {
			out = append(out, l)
		}
		p.rejected[name] = n
	}
	return out, nil
}
