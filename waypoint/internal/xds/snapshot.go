package xds

import "github.com/isthmus-mesh/isthmus/waypoint/l7"

// Snapshot is what the control plane sent, each type sorted by name.
type Snapshot struct {
	Listeners, Clusters, Routes, Endpoints []Resource
	Secrets                                []Secret
	// Counts of updates by type URL.
	Counts map[string]Counts
	// Started is whether the first complete configuration is in force.
	Started bool
}

// Counts of updates of resources.
type Counts struct {
	Success, Rejected uint64
	Active, Warming   int
}

// Snapshot returns what is known now.
func (a *Assembler) Snapshot() Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Snapshot{
		Listeners: a.listeners.list(), Clusters: a.clusters.list(), Routes: a.routes.list(), Endpoints: a.endpoints.list(),
		Secrets: a.secretList(),
		Started: a.started,
		Counts: map[string]Counts{
			ListenerType: a.listeners.counts(), ClusterType: a.clusters.counts(),
			RouteType: a.routes.counts(), EndpointType: a.endpoints.counts(), SecretType: a.secrets.counts(),
		},
	}
}

func (c *collection[T]) counts() Counts {
	out := Counts{Success: c.success, Rejected: c.rejected, Warming: len(c.warming)}
	for _, i := range c.items {
		if i.active != nil {
			out.Active++
		}
	}
	return out
}

// Secret is what is known of one: without a content that could be shown, but the table when it serves.
type Secret struct {
	Resource
	Table *l7.Secret
}

func (a *Assembler) secretList() []Secret {
	var out []Secret
	for _, r := range a.secrets.list() {
		s := Secret{Resource: r}
		if i := a.secrets.items[r.Name]; i.active != nil {
			s.Table = i.active.table
		}
		out = append(out, s)
	}
	return out
}
