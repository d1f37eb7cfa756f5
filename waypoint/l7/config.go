package l7

import "maps"

// Config is all tables of a proxy. It is immutable: the With methods return the next one.
type Config struct {
	Listeners map[string]*Listener
	Routes    map[string]*Routes
	Clusters  map[string]*Cluster
	Endpoints map[string]*Endpoints // by name of the ClusterLoadAssignment
	Secrets   map[string]*Secret
}

// NewConfig returns a configuration without anything.
func NewConfig() *Config {
	return &Config{Listeners: map[string]*Listener{}, Routes: map[string]*Routes{}, Clusters: map[string]*Cluster{}, Endpoints: map[string]*Endpoints{}, Secrets: map[string]*Secret{}}
}

// Update is a change of a [Config]: what is new or replaced, and, as nil, what is gone.
type Update struct {
	Listeners map[string]*Listener
	Routes    map[string]*Routes
	Clusters  map[string]*Cluster
	Endpoints map[string]*Endpoints
	Secrets   map[string]*Secret
}

// With returns the configuration after the update. Maps without a change are shared.
func (c *Config) With(u Update) *Config {
	return &Config{
		Listeners: merged(c.Listeners, adopted(c.Listeners, u.Listeners)),
		Routes:    merged(c.Routes, u.Routes),
		Clusters:  merged(c.Clusters, u.Clusters),
		Endpoints: merged(c.Endpoints, u.Endpoints),
		Secrets:   merged(c.Secrets, u.Secrets),
	}
}

func merged[T any](old, change map[string]*T) map[string]*T {
	if len(change) == 0 {
		return old
	}
	next := make(map[string]*T, len(old)+len(change))
	maps.Copy(next, old)
	for k, v := range change {
		if v == nil {
			delete(next, k)
		} else {
			next[k] = v
		}
	}
	return next
}

// EndpointsOf returns the endpoints of a cluster: inline or by EDS; nil when there are none (yet).
func (c *Config) EndpointsOf(cl *Cluster) *Endpoints {
	if cl.Static != nil {
		return cl.Static
	}
	if cl.Discovery == DiscoveryEDS {
		return c.Endpoints[cl.EDSName]
	}
	return nil
}

// InternalListener returns the internal listener that a cluster leads to ("main_internal", "connect_originate"), or "".
func (c *Config) InternalListener(cluster string) string {
	cl := c.Clusters[cluster]
	if cl == nil || cl.Static == nil {
		return ""
	}
	for _, e := range cl.Static.List {
		if e.Internal != "" {
			return e.Internal
		}
	}
	return ""
}
