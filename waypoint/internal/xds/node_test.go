package xds_test

import (
	"net/netip"
	"testing"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
)

func TestNode(t *testing.T) {
	n := xds.Node{
		Kind: "waypoint", Name: "waypoint-1", Namespace: "default", ServiceAccount: "waypoint", NodeName: "n1", ClusterID: "c1",
		Domain: "default.svc.cluster.local", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")},
		Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": "waypoint", "app": "x"}, Version: "1.2.3",
		Metadata: map[string]any{"MESH_ID": "m", "CLUSTER_ID": "other"}, EngineVersion: [3]uint32{1, 40, 0},
	}
	p, err := n.Proto()
	if err != nil {
		t.Fatal(err)
	}
	if want := "waypoint~10.0.0.9~waypoint-1.default~default.svc.cluster.local"; p.GetId() != want {
		t.Errorf("%s, want %s", p.GetId(), want)
	}
	fields := p.GetMetadata().GetFields()
	for key, want := range map[string]string{
		"NAME": "waypoint-1", "NAMESPACE": "default", "SERVICE_ACCOUNT": "waypoint", "NODE_NAME": "n1", "CLUSTER_ID": "other",
		"INSTANCE_IPS": "10.0.0.9,fd00::9", "ISTIO_VERSION": "1.2.3", "MESH_ID": "m",
	} {
		if got := fields[key].GetStringValue(); got != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	if got := fields["LABELS"].GetStructValue().GetFields()["gateway.networking.k8s.io/gateway-name"].GetStringValue(); got != "waypoint" {
		t.Errorf("labels: %v", fields["LABELS"])
	}
	if p.GetCluster() != "x.default" || p.GetUserAgentBuildVersion().GetVersion().GetMinorNumber() != 40 {
		t.Errorf("%v", p)
	}
	n.Cluster = "given"
	if p, err := n.Proto(); err != nil || p.GetCluster() != "given" {
		t.Errorf("%v, %v", p.GetCluster(), err)
	}
	n.IPs, n.Labels = nil, nil
	if n.ID() != "waypoint~1.1.1.1~waypoint-1.default~default.svc.cluster.local" {
		t.Error(n.ID())
	}
	n.Metadata = map[string]any{"X": struct{}{}}
	if _, err := n.Proto(); err == nil {
		t.Error("metadata that is no JSON was taken")
	}
}
