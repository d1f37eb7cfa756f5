package reach

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach/reachtest"
)

// newCluster is a mesh behind an API server with one waypoint.
func newCluster(t *testing.T) *Mesh {
	t.Helper()
	admin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "admin ", r.URL.Path) })
	meta := metav1.ObjectMeta{Namespace: "default", Name: "waypoint-1", Labels: map[string]string{"app": "w"}}
	pod := corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{
		Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}}
	selector := &metav1.LabelSelector{MatchLabels: meta.Labels}
	mux := http.NewServeMux()
	serve := func(path string, value any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value)
		})
	}
	const ns = "/namespaces/default/"
	serve("/api/v1"+ns+"pods/waypoint-1", pod)
	serve("/api/v1"+ns+"services/waypoint", corev1.Service{Spec: corev1.ServiceSpec{Selector: meta.Labels}})
	serve("/api/v1"+ns+"services/headless", corev1.Service{})
	serve("/apis/apps/v1"+ns+"deployments/waypoint", appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: selector}})
	serve("/apis/apps/v1"+ns+"daemonsets/waypoint", appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: selector}})
	serve("/apis/apps/v1"+ns+"statefulsets/waypoint", appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Selector: selector}})
	serve("/apis/apps/v1"+ns+"replicasets/waypoint", appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Selector: selector}})
	// Two pages: what is asked for in parts is put together.
	mux.HandleFunc("GET /api/v1"+ns+"pods", func(w http.ResponseWriter, r *http.Request) {
		list := corev1.PodList{Items: []corev1.Pod{pod}}
		if r.URL.Query().Get("continue") == "" {
			list.Items[0].Name, list.Items[0].Status.Phase, list.Continue = "gone", corev1.PodFailed, "more"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("/api/v1"+ns+"pods/waypoint-1/portforward", func(w http.ResponseWriter, r *http.Request) {
		reachtest.PortForward(w, r, func(port string) http.Handler {
			if port == "15000" {
				return admin
			}
			return nil
		})
	})
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)
	m, err := Cluster(&rest.Config{Host: api.URL}, "default")
	if err != nil {
		t.Fatal(err)
	}
	m.Timeout = 30 * time.Second
	return m
}

// TestCluster: pods are found by all that owns them, and answer through the API.
func TestCluster(t *testing.T) {
	t.Parallel()
	m := newCluster(t)
	for _, name := range []string{"waypoint-1", "deploy/waypoint", "ds/waypoint", "sts/waypoint", "rs/waypoint", "svc/waypoint", "gateway/waypoint"} {
		pod, err := m.Find(t.Context(), name)
		if err != nil || pod.String() != "waypoint-1.default" || pod.Node != "n" {
			t.Errorf("%s: %v, %v", name, pod, err)
		}
	}
	for name, want := range map[string]string{
		"deploy/none": "there is no deployment none", "job/none": "there is no job none", "none": "there is no pod none", "svc/headless": "no selector",
	} {
		if _, err := m.Find(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", name, err, want)
		}
	}
	pod := Pod{Namespace: "default", Name: "waypoint-1"}
	got, err := m.Get(t.Context(), pod, 15000, "/config_dump")
	if err != nil || string(got) != "admin /config_dump" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err = m.Get(t.Context(), pod, 1, "/"); !errors.Is(err, errRefused) {
		t.Errorf("a closed port: %v", err)
	}
	if _, err = m.Get(t.Context(), Pod{Namespace: "default", Name: "none"}, 1, "/"); err == nil {
		t.Error("a pod that is not there answers")
	}
}
