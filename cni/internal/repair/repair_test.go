package repair

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// brokenPod is one whose check has ended with the code of a missing redirection.
func brokenPod(name string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Annotations: map[string]string{"sidecar.istio.io/status": "{}"}, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{
			Name: "istio-validation", LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 126}},
		}}},
	}
	if edit != nil {
		edit(p)
	}
	return p
}

func TestBroken(t *testing.T) {
	for name, tt := range map[string]struct {
		config func(*Config)
		pod    func(*corev1.Pod)
		want   bool
	}{
		"ended before": {nil, nil, true},
		"has ended": {nil, func(p *corev1.Pod) {
			s := &p.Status.InitContainerStatuses[0]
			s.State, s.LastTerminationState = s.LastTerminationState, corev1.ContainerState{}
		}, true},
		"another code":        {nil, func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].LastTerminationState.Terminated.ExitCode = 1 }, false},
		"another container":   {nil, func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].Name = "other" }, false},
		"no sidecar":          {nil, func(p *corev1.Pod) { p.Annotations = nil }, false},
		"all pods":            {func(c *Config) { c.SidecarAnnotation = "" }, func(p *corev1.Pod) { p.Annotations = nil }, true},
		"is going":            {nil, func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, false},
		"label matches":       {func(c *Config) { c.LabelSelectors = "app in (web)" }, nil, true},
		"label does not":      {func(c *Config) { c.LabelSelectors = "app!=web" }, nil, false},
		"field matches":       {func(c *Config) { c.FieldSelectors = "metadata.namespace=shop" }, nil, true},
		"field does not":      {func(c *Config) { c.FieldSelectors = "metadata.namespace!=shop" }, nil, false},
		"a code of one's own": {func(c *Config) { c.ExitCode = 7 }, func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].LastTerminationState.Terminated.ExitCode = 7 }, true},
	} {
		c := Default()
		c.Enabled = true
		if tt.config != nil {
			tt.config(&c)
		}
		if got := c.broken(brokenPod("web", tt.pod)); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*Config){
		"labels": func(c *Config) { c.LabelSelectors = "a b" }, "fields": func(c *Config) { c.FieldSelectors = "a" }, "nothing to do": func(c *Config) { c.RepairPods = false },
	} {
		c := Default()
		c.Enabled = true
		if edit(&c); c.Validate() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// api keeps what was done.
type api struct {
	mu     sync.Mutex
	done   []string
	broken bool
}

func (a *api) note(what string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = append(a.done, what)
	if a.broken {
		return errors.New("no")
	}
	return nil
}

func (a *api) Delete(_ context.Context, p *corev1.Pod) error { return a.note("delete " + p.Name) }

func (a *api) Label(_ context.Context, p *corev1.Pod, key, value string) error {
	return a.note("label " + p.Name + " " + key + "=" + value)
}

func (a *api) mend(_ context.Context, p *corev1.Pod) error { return a.note("mend " + p.Name) }

func TestEachBrokenPodIsMendedOnce(t *testing.T) {
	for kind, tt := range map[string]struct {
		edit func(*Config)
		want string
	}{
		"repair": {func(*Config) {}, "mend web"},
		"delete": {func(c *Config) { c.RepairPods, c.DeletePods = false, true }, "delete web"},
		"label":  {func(c *Config) { c.RepairPods, c.LabelPods = false, true }, "label web cni.istio.io/uninitialized=true"},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg, world := Default(), &api{broken: true}
			tt.edit(&cfg)
			c, err := New(cfg, "n1", world, world.mend, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go c.Run(ctx)
			tell := func(pods ...*corev1.Pod) {
				var list []kube.Object
				for _, p := range pods {
					list = append(list, p)
				}
				c.Apply(kube.PodGVK(), list, nil)
				synctest.Wait()
			}
			other := brokenPod("other", func(p *corev1.Pod) { p.Spec.NodeName = "n2" })
			tell(other, brokenPod("fine", func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }), brokenPod("web", nil)) // fails
			world.mu.Lock()
			world.broken = false
			world.mu.Unlock()
			tell(brokenPod("web", nil)) // is tried again
			tell(brokenPod("web", nil)) // is done
			if !slices.Equal(world.done, []string{tt.want, tt.want}) {
				t.Errorf("%s: %q", kind, world.done)
			}
			if ok, failed := testutil.ToFloat64(c.count.WithLabelValues("success", kind)), testutil.ToFloat64(c.count.WithLabelValues("fail", kind)); ok != 1 || failed != 1 {
				t.Errorf("%s: %v succeeded, %v failed", kind, ok, failed)
			}
		})
	}
}
