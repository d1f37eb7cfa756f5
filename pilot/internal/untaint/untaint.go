// Package untaint opens nodes for pods once the mesh's CNI agent is ready on them: until then a taint keeps pods away that would
// start outside the mesh.
package untaint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	// Taint is the key of the taint that is taken away.
	Taint = "cni.istio.io/not-ready"

	agentLabel, agentName = "k8s-app", "istio-cni-node"
)

// Config of a controller.
type Config struct {
	Client kubernetes.Interface
	// Namespace of the CNI agent.
	Namespace string
	Log       *slog.Logger
}

// Controller takes the taint from nodes.
type Controller struct {
	cfg Config
}

// New returns a controller that has not done anything yet.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Log == nil {
		return nil, errors.New("untaint nodes: no client or logger")
	}
	return &Controller{cfg: cfg}, nil
}

// run is one time of being the leader.
type run struct {
	Config
	queue workqueue.TypedRateLimitingInterface[string]
	nodes listers.NodeLister
	pods  listers.PodNamespaceLister
}

// Run works until ctx ends: while this instance is the leader. It may be called again afterwards.
func (c *Controller) Run(ctx context.Context) error {
	r := &run{Config: c.cfg, queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute))}
	defer r.queue.ShutDown()
	nodes := informers.NewSharedInformerFactoryWithOptions(c.cfg.Client, 0, informers.WithTransform(strip))
	pods := informers.NewSharedInformerFactoryWithOptions(c.cfg.Client, 0, informers.WithTransform(strip), informers.WithNamespace(c.cfg.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = agentLabel + "=" + agentName }))
	r.nodes, r.pods = nodes.Core().V1().Nodes().Lister(), pods.Core().V1().Pods().Lister().Pods(c.cfg.Namespace)
	add := func(o any) {
		switch o := o.(type) {
		case *corev1.Node:
			if slices.ContainsFunc(o.Spec.Taints, isOurs) {
				r.queue.Add(o.Name)
			}
		case *corev1.Pod:
			if o.Spec.NodeName != "" && ready(o) {
				r.queue.Add(o.Spec.NodeName)
			}
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }}
	var synced []cache.InformerSynced
	for _, i := range []cache.SharedIndexInformer{nodes.Core().V1().Nodes().Informer(), pods.Core().V1().Pods().Informer()} {
		registration, err := i.AddEventHandler(handler)
		if err != nil {
			return fmt.Errorf("watch nodes: %w", err)
		}
		synced = append(synced, registration.HasSynced)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer nodes.Shutdown()
	defer pods.Shutdown()
	defer cancel()
	nodes.Start(ctx.Done())
	pods.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	r.work(ctx)
	return nil
}

// strip keeps what is asked for here.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Node:
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: o.Name, ResourceVersion: o.ResourceVersion}, Spec: corev1.NodeSpec{Taints: o.Spec.Taints}}, nil
	case *corev1.Pod:
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels, ResourceVersion: o.ResourceVersion, DeletionTimestamp: o.DeletionTimestamp},
			Spec:       corev1.PodSpec{NodeName: o.Spec.NodeName}, Status: corev1.PodStatus{Conditions: o.Status.Conditions},
		}, nil
	}
	return o, nil
}

func isOurs(t corev1.Taint) bool { return t.Key == Taint }

func ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (r *run) work(ctx context.Context) {
	for {
		name, stop := r.queue.Get()
		if stop {
			return
		}
		if err := r.untaint(ctx, name); err != nil && ctx.Err() == nil {
			if !apierrors.IsConflict(err) {
				r.Log.Warn("take the taint from a node; it is tried again", "node", name, "error", err)
			}
			r.queue.AddRateLimited(name)
		} else {
			r.queue.Forget(name)
		}
		r.queue.Done(name)
	}
}

// untaint takes the taint from a node whose agent is ready.
func (r *run) untaint(ctx context.Context, name string) error {
	node, err := r.nodes.Get(name)
	if err != nil || !slices.ContainsFunc(node.Spec.Taints, isOurs) {
		return nil //nolint:nilerr // a lister's only error is that there is none
	}
	agents, err := r.pods.List(labels.Everything())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(agents, func(p *corev1.Pod) bool { return p.Spec.NodeName == name && ready(p) }) {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(node.Spec.Taints), isOurs)
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion}, // others write taints, too
		"spec":     map[string]any{"taints": rest},
	})
	if err != nil {
		return err
	}
	if _, err := r.Client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "istio-node-untaint"}); err != nil {
		return err
	}
	r.Log.Info("the mesh's CNI agent is ready on a node: pods may start there", "node", name)
	return nil
}
