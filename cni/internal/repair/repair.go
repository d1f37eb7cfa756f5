// Package repair mends pods whose network was set up past the plugin: their init container, which checks that, ends with a code
// of its own. Such a pod is brought into order, deleted so that its owner makes another one, or labelled for somebody else.
package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Config of the repair.
type Config struct {
	Enabled bool
	// One of these is done, the first that is set.
	RepairPods, DeletePods, LabelPods bool
	// LabelKey and LabelValue mark a broken pod.
	LabelKey, LabelValue string
	// InitContainer and ExitCode tell a broken pod. A message of the container's termination is not looked at.
	InitContainer string
	ExitCode      int
	// SidecarAnnotation restricts the repair to pods that have it; empty is all.
	SidecarAnnotation string
	// LabelSelectors and FieldSelectors (of metadata.name, metadata.namespace, spec.serviceAccountName, status.phase) restrict it further.
	LabelSelectors, FieldSelectors string
}

// Default is the configuration that Istio's chart has.
func Default() Config {
	return Config{
		RepairPods: true, LabelKey: "cni.istio.io/uninitialized", LabelValue: "true",
		InitContainer: "istio-validation", ExitCode: 126, SidecarAnnotation: "sidecar.istio.io/status",
	}
}

// Validate checks the selectors.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	if _, err := labels.Parse(c.LabelSelectors); err != nil {
		return fmt.Errorf("repair: label selectors %q: %w", c.LabelSelectors, err)
	}
	if _, err := fields.ParseSelector(c.FieldSelectors); err != nil {
		return fmt.Errorf("repair: field selectors %q: %w", c.FieldSelectors, err)
	}
	if !c.RepairPods && !c.DeletePods && !c.LabelPods {
		return errors.New("repair is enabled, but nothing is to be done: set one of --repair-repair-pods, --repair-delete-pods, --repair-label-pods")
	}
	return nil
}

// broken decides whether a pod is to be mended.
func (c Config) broken(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil || c.SidecarAnnotation != "" && pod.Annotations[c.SidecarAnnotation] == "" {
		return false
	}
	selector, err := labels.Parse(c.LabelSelectors)
	if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
		return false
	}
	field, err := fields.ParseSelector(c.FieldSelectors)
	if err != nil || !field.Matches(fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName,
		"spec.serviceAccountName": pod.Spec.ServiceAccountName, "status.phase": string(pod.Status.Phase),
	}) {
		return false
	}
	return slices.ContainsFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == c.InitContainer && (ended(s.State, c.ExitCode) || ended(s.LastTerminationState, c.ExitCode))
	})
}

func ended(s corev1.ContainerState, code int) bool {
	return s.Terminated != nil && int(s.Terminated.ExitCode) == code
}

// API does what a repair does.
type API interface {
	Delete(ctx context.Context, pod *corev1.Pod) error
	Label(ctx context.Context, pod *corev1.Pod, key, value string) error
}

// Controller mends the pods that it is told of. It implements kube.Sink.
type Controller struct {
	cfg   Config
	node  string
	api   API
	mend  func(ctx context.Context, pod *corev1.Pod) error
	log   *slog.Logger
	count *prometheus.CounterVec
	wake  chan struct{}

	mu   sync.Mutex // guards what follows
	todo map[types.UID]*corev1.Pod
	done map[types.NamespacedName]types.UID
}

// New registers the repair's metric. mend brings a pod's network into order, in place.
func New(cfg Config, node string, api API, mend func(context.Context, *corev1.Pod) error, registerer prometheus.Registerer, log *slog.Logger) (*Controller, error) {
	c := &Controller{
		cfg: cfg, node: node, api: api, mend: mend, log: log, wake: make(chan struct{}, 1), todo: map[types.UID]*corev1.Pod{}, done: map[types.NamespacedName]types.UID{},
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_repair_pods_repaired_total", Help: "Pods with a broken network that were mended, deleted or labelled.",
		}, []string{"result", "type"}),
	}
	return c, registerer.Register(c.count)
}

// Apply implements kube.Sink.
func (c *Controller) Apply(gvk schema.GroupVersionKind, upserts []kube.Object, deletes []types.NamespacedName) {
	if gvk != kube.PodGVK() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range deletes {
		delete(c.done, name)
	}
	for _, o := range upserts {
		pod, ok := o.(*corev1.Pod)
		if !ok || pod.Spec.NodeName != c.node {
			continue
		}
		if !c.cfg.broken(pod) {
			delete(c.todo, pod.UID)
			continue
		}
		if c.done[kube.NameOf(pod)] != pod.UID {
			c.todo[pod.UID] = pod
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
	}
}

// Synced implements kube.Sink.
func (c *Controller) Synced() {}

// Run mends until ctx ends. A repair that fails is tried again with the pod's next change.
func (c *Controller) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for _, pod := range c.take() {
			kind, err := c.repair(ctx, pod)
			result := "success"
			if err != nil {
				result = "fail"
				c.log.WarnContext(ctx, "pod with a broken network not repaired", "pod", pod.Namespace+"/"+pod.Name, "by", kind, "error", err)
			} else {
				c.log.InfoContext(ctx, "pod with a broken network repaired", "pod", pod.Namespace+"/"+pod.Name, "by", kind)
				c.mu.Lock()
				c.done[kube.NameOf(pod)] = pod.UID
				c.mu.Unlock()
			}
			c.count.WithLabelValues(result, kind).Inc()
		}
	}
}

func (c *Controller) take() []*corev1.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*corev1.Pod
	for _, pod := range c.todo {
		out = append(out, pod)
	}
	clear(c.todo)
	return out
}

func (c *Controller) repair(ctx context.Context, pod *corev1.Pod) (kind string, err error) {
	switch {
	case c.cfg.RepairPods:
		return "repair", c.mend(ctx, pod)
	case c.cfg.DeletePods:
		return "delete", c.api.Delete(ctx, pod)
	default:
		if pod.Labels[c.cfg.LabelKey] == c.cfg.LabelValue {
			return "label", nil
		}
		return "label", c.api.Label(ctx, pod, c.cfg.LabelKey, c.cfg.LabelValue)
	}
}
