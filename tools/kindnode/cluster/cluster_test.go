package cluster

import (
	"log/slog"
	"testing"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

func TestSpec(t *testing.T) {
	got := spec(Config{Workers: 2, Family: "dual"})
	var roles []v1alpha4.NodeRole
	for _, n := range got.Nodes {
		roles = append(roles, n.Role)
	}
	if len(roles) != 3 || roles[0] != v1alpha4.ControlPlaneRole || roles[1] != v1alpha4.WorkerRole || roles[2] != v1alpha4.WorkerRole {
		t.Errorf("roles: %v", roles)
	}
	if got.Networking.IPFamily != v1alpha4.DualStackFamily {
		t.Errorf("family: %s", got.Networking.IPFamily)
	}
}

// Loading into a cluster that is not there must say so, and not succeed because there was no node to fail.
func TestLoadWithoutCluster(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///does/not/exist.sock")
	if err := New(slog.New(slog.DiscardHandler)).Load(t.Context(), "absent", nil); err == nil {
		t.Error("no error")
	}
}
