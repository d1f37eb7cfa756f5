package server_test

import (
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// configurations are what each client is to have, one line per type.
func configurations(t *testing.T, s *server.Server, connection uint64) string {
	t.Helper()
	all, ok := s.Configurations(connection)
	if !ok {
		return "gone"
	}
	var lines []string
	for _, c := range all {
		line := short(c.TypeURL)
		for _, r := range c.Resources {
			line += " " + r.Name + "@" + r.Version + "=" + string(r.Any.GetValue())
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// TestConfigurations: what a client has asked for is shown as it is now, of its own scope, whether it has taken it or not.
func TestConfigurations(t *testing.T) {
	s, addr := serve(t, server.Config{Scopes: &byNode{}})
	a := newDeltaPeer(t, addr, "a")
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: clusterType, Node: scopedNode("a")})
	a.send(&discovery.DeltaDiscoveryRequest{TypeUrl: routeType, ResourceNamesSubscribe: []string{"r1"}})
	b := newSotwPeer(t, addr, "b")
	b.ask(listenerType)
	b.ask(routeType, "r2", "none")
	eventually(t, "both are there", func() bool { return len(s.Clients()) == 2 })
	for _, scope := range []string{"a", "b"} {
		s.PublishScope(scope, of(clusterType, "c@1"), of(listenerType, "l@"+scope), of(routeType, "r1@1", "r2@1", "r3@1"))
	}
	wants := map[string]string{"a": "cds c@1=c@1; rds r1@1=r1@1", "b": "cds c@1=c@1; lds l@b=l@b; rds r2@1=r2@1"}
	for _, c := range s.Clients() {
		eventually(t, "what "+c.Node.GetCluster()+" is to have", func() bool { return configurations(t, s, c.ConnectionID) == wants[c.Node.GetCluster()] })
	}
	s.PublishScope("a", of(clusterType, "c@2", "d@1"), of(routeType, "-r1"))
	for _, c := range s.Clients() {
		if c.Node.GetCluster() == "a" {
			eventually(t, "the change", func() bool { return configurations(t, s, c.ConnectionID) == "cds c@2=c@2 d@1=d@1; rds" })
		}
	}
	if got := configurations(t, s, 99); got != "gone" {
		t.Errorf("a connection that there is not: %s", got)
	}
}
