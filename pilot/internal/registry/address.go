package registry

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// address is a workload or a service as it is kept. There are as many as pods, and a message takes several times the memory of its
// encoding: only what is asked for without looking at one workload in particular is kept beside that.
type address struct {
	name, version   string
	content         []byte // an Address on the wire
	aliases, groups []string

	// of workloads
	labels    map[string]string
	binding   *ambient.Binding // nil when no waypoint is asked for
	sidecar   bool
	unhealthy bool
	leaving   bool // it is being deleted
}

func (a *address) key() string { return a.name }

// Equal compares by content.
func (a *address) Equal(b *address) bool {
	x, y := a.bound(), b.bound()
	return a.name == b.name && a.version == b.version && bytes.Equal(a.content, b.content) && slices.Equal(a.aliases, b.aliases) &&
		slices.Equal(a.groups, b.groups) && maps.Equal(a.labels, b.labels) && a.sidecar == b.sidecar && a.leaving == b.leaving && x.Waypoint == y.Waypoint && x.Reason == y.Reason
}

// bound is what the workload's own labels ask for.
func (a *address) bound() ambient.Binding {
	if a.binding == nil {
		return ambient.Binding{}
	}
	return *a.binding
}

// services are the keys of those that the workload is behind.
func (a *address) services() []string {
	if n := len(a.groups); n > 0 && a.groups[n-1][0] == nodeMark {
		return a.groups[:n-1]
	}
	return a.groups
}

// decode returns the workload.
func (a *address) decode() *ambient.Workload {
	var m workload.Address
	if err := proto.Unmarshal(a.content, &m); err != nil {
		panic(fmt.Sprintf("read the workload %s: %v", a.name, err)) // it was encoded here
	}
	return &ambient.Workload{Proto: m.GetWorkload(), Labels: a.labels, Sidecar: a.sidecar, Binding: a.bound()}
}

// asWorkload is the resource of those who ask for workloads as a type of their own.
func (a *address) asWorkload() delta.Resource {
	_, _, header := protowire.ConsumeTag(a.content) // a field with the workload is all that there is
	content, _ := protowire.ConsumeBytes(a.content[header:])
	return delta.Resource{Name: a.name, Version: versionOf(content), Any: &anypb.Any{TypeUrl: WorkloadType, Value: content}, Aliases: a.aliases}
}

func (a *address) resource() delta.Resource {
	return delta.Resource{Name: a.name, Version: a.version, Any: &anypb.Any{TypeUrl: AddressType, Value: a.content}, Aliases: a.aliases, Groups: a.groups}
}

func newAddress(name string, m *workload.Address) *address {
	d := encode(AddressType, name, m, true)
	return &address{name: name, version: d.Version, content: d.Any.Value}
}

func serviceAddress(s *ambient.Service) *address {
	a := newAddress(s.Key(), &workload.Address{Type: &workload.Address_Service{Service: s.Proto}})
	a.aliases = serviceAliases(s.Proto)
	return a
}

// workloadAddress takes a workload over; nil for nil. The names of nodes are shared: it is called while the graph is locked.
func (r *Registry) workloadAddress(w *ambient.Workload) *address {
	if w == nil {
		return nil
	}
	a := newAddress(w.Proto.Uid, &workload.Address{Type: &workload.Address_Workload{Workload: w.Proto}})
	a.aliases = workloadAliases(w.Proto)
	a.labels, a.sidecar, a.unhealthy, a.leaving = w.Labels, w.Sidecar, w.Proto.Status == workload.WorkloadStatus_UNHEALTHY, w.Leaving
	if w.Binding.Waypoint != "" {
		a.binding = &w.Binding
	}
	a.groups = make([]string, 0, len(w.Proto.Services)+1)
	for key := range w.Proto.Services {
		a.groups = append(a.groups, key)
	}
	slices.Sort(a.groups)
	if w.Proto.Node != "" {
		a.groups = append(a.groups, r.nodeGroup(w.Proto.Node))
	}
	return a
}

func (r *Registry) workloadAddresses(list []*ambient.Workload) []*address {
	out := make([]*address, 0, len(list))
	for _, w := range list {
		out = append(out, r.workloadAddress(w))
	}
	return out
}

// nodeMark begins what cannot be asked for by a client.
const nodeMark = '\x00'

func nodeGroup(node string) string { return string(nodeMark) + "node/" + node }

// nodeGroup returns the same string for all workloads of a node.
func (r *Registry) nodeGroup(node string) string {
	group, ok := r.nodeGroups[node]
	if !ok {
		if len(r.nodeGroups) >= 1<<14 {
			r.nodeGroups = map[string]string{}
		}
		group = nodeGroup(node)
		r.nodeGroups[node] = group
	}
	return group
}
