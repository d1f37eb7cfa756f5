package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	defaultRevision = "default"
	labelRevision   = "istio.io/rev"
	// defaultValidator is the configuration for objects of no revision, of whichever control plane is the default one.
	defaultValidator = "istiod-default-validator"
	// resync is how often a configuration is looked at without a reason.
	resync = time.Minute
)

// Run keeps the certificates in the webhook configurations in line with CABundle until ctx ends: while this instance is the leader.
// Once the webhook has answered the API server, an object is refused also when it cannot be asked. Run may be called again.
func (s *Server) Run(ctx context.Context) error {
	if s.client == nil || s.cfg.CABundle == nil {
		return errors.New("keep webhook configurations: no client configuration or root certificates")
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 10*time.Second))
	defer queue.ShutDown()
	factory := informers.NewSharedInformerFactoryWithOptions(s.client, resync, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "app=istiod" }))
	configurations := factory.Admissionregistration().V1().ValidatingWebhookConfigurations()
	add := func(o any) {
		if c, ok := o.(*admissionregistrationv1.ValidatingWebhookConfiguration); ok && s.isOurs(c) {
			queue.Add(c.Name)
		}
	}
	registered, err := configurations.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }})
	if err != nil {
		return fmt.Errorf("watch webhook configurations: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registered.HasSynced) {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				queue.ShutDown()
				return
			case <-s.changed:
				all, _ := configurations.Lister().List(labels.Everything()) // a lister of a cache has no errors
				for _, c := range all {
					add(c)
				}
			}
		}
	}()
	s.work(ctx, queue, func(name string) *admissionregistrationv1.ValidatingWebhookConfiguration {
		c, err := configurations.Lister().Get(name)
		if err != nil {
			return nil
		}
		return c
	})
	<-done
	return nil
}

func (s *Server) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], get func(string) *admissionregistrationv1.ValidatingWebhookConfiguration) {
	for {
		name, stop := queue.Get()
		if stop {
			return
		}
		again := false
		if c := get(name); c != nil {
			var err error
			if again, err = s.keep(ctx, c); err != nil && ctx.Err() == nil {
				again = true
				if !apierrors.IsConflict(err) {
					s.metrics.updateErrors.WithLabelValues(string(apierrors.ReasonForError(err))).Inc()
					s.cfg.Log.Warn("keep a webhook configuration; it is tried again", "name", name, "error", err)
				}
			}
		}
		if again {
			queue.AddRateLimited(name)
		} else {
			queue.Forget(name)
		}
		queue.Done(name)
	}
}

// isOurs tells whether a configuration is of this control plane's revision.
func (s *Server) isOurs(c *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	if c.Name != defaultValidator && !strings.HasPrefix(c.Name, "istio-validator") {
		return false
	}
	revision := c.Labels[labelRevision]
	return revision == s.cfg.Revision || revision == "" && s.cfg.Revision == defaultRevision
}

// keep brings one configuration in line; again is set while the webhook has not been seen to answer.
func (s *Server) keep(ctx context.Context, c *admissionregistrationv1.ValidatingWebhookConfiguration) (again bool, err error) {
	bundle := s.cfg.CABundle()
	if len(bundle) == 0 {
		return true, nil // it is not there yet
	}
	trusted := !slices.ContainsFunc(c.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
		return s.points(w) && !bytes.Equal(w.ClientConfig.CABundle, bundle)
	})
	closed := !slices.ContainsFunc(c.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
		return s.points(w) && (w.FailurePolicy == nil || *w.FailurePolicy != admissionregistrationv1.Fail)
	})
	if trusted && closed {
		return false, nil
	}
	fail := false
	if trusted {
		if fail, err = s.answers(ctx, c); err != nil || !fail {
			return true, err
		}
	}
	var changes []map[string]any
	for _, w := range c.Webhooks {
		if !s.points(w) {
			continue
		}
		change := map[string]any{"name": w.Name, "clientConfig": map[string]any{"caBundle": bundle}}
		if fail {
			change["failurePolicy"] = admissionregistrationv1.Fail
		}
		changes = append(changes, change)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": c.ResourceVersion}, "webhooks": changes})
	if err != nil {
		return false, err
	}
	_, err = s.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, c.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "istiod-validation"})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.metrics.updates.WithLabelValues().Inc()
	s.cfg.Log.Info("the API server has the webhook's roots", "configuration", c.Name, "refusesWhenUnreachable", fail)
	return false, nil // the change leads here again
}

// points tells whether a webhook is served by this control plane.
func (s *Server) points(w admissionregistrationv1.ValidatingWebhook) bool {
	service := w.ClientConfig.Service
	return service == nil || service.Namespace == s.cfg.Namespace
}

// answers finds out whether the webhook is asked by the API server: one of the Gateways that it would refuse is created, for show.
func (s *Server) answers(ctx context.Context, c *admissionregistrationv1.ValidatingWebhookConfiguration) (bool, error) {
	wrong := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "spec": map[string]any{},
		"metadata": map[string]any{"namespace": s.cfg.Namespace, "name": "is-the-validation-webhook-ready", "labels": s.selected(c)},
	}}
	gateways := schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "gateways"}
	_, err := s.dynamic.Resource(gateways).Namespace(s.cfg.Namespace).Create(ctx, wrong, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return false, nil // nobody was asked
	case strings.Contains(err.Error(), "denied the request"):
		return true, nil
	case apierrors.IsNotFound(err):
		return false, nil // Gateways do not exist as a kind yet
	}
	return false, fmt.Errorf("ask the validation webhook by the API server: %w", err)
}

// selected are labels of an object that a configuration is for: with the revision, or without.
func (s *Server) selected(c *admissionregistrationv1.ValidatingWebhookConfiguration) map[string]any {
	with := map[string]any{labelRevision: s.cfg.Revision}
	for _, w := range c.Webhooks {
		selector, err := metav1.LabelSelectorAsSelector(w.ObjectSelector)
		if err != nil || w.ObjectSelector == nil {
			continue
		}
		if !selector.Matches(labels.Set{labelRevision: s.cfg.Revision}) {
			return map[string]any{}
		}
	}
	return with
}
