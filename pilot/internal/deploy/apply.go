package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// fieldManager owns the fields that are rendered.
const fieldManager = "istio.io/gateway-controller"

// owned tells whether an object is a Gateway's.
func owned(o metav1.Object, gw *gatewayv1.Gateway) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == gw.UID })
}

// applyAll applies what a Gateway is deployed as, and deletes what it was deployed as before and is no more.
func (r *run) applyAll(ctx context.Context, gw *gatewayv1.Gateway, objects deploy.Objects) error {
	var wrong, failed []error
	keep := map[string]bool{}
	for _, o := range objects.All() {
		keep[keyOf(o)] = true
		err := r.apply(ctx, gw, o)
		var problem refused
		switch {
		case errors.As(err, &problem):
			wrong = append(wrong, problem.error)
		case err != nil:
			failed = append(failed, fmt.Errorf("apply %s %s: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err))
		}
	}
	failed = append(failed, r.prune(ctx, gw, keep))
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if err := errors.Join(wrong...); err != nil {
		return refused{err}
	}
	return nil
}

func keyOf(o deploy.Object) string {
	return o.GetObjectKind().GroupVersionKind().Kind + "/" + o.GetNamespace() + "/" + o.GetName()
}

// apply has the API server make one object what was rendered, unless it is that already.
func (r *run) apply(ctx context.Context, gw *gatewayv1.Gateway, o deploy.Object) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	delete(fields, "status")
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(fields, "spec", "template", "metadata", "creationTimestamp")
	text, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	hash, key := hex.EncodeToString(sum[:]), keyOf(o)

	live := r.seen(o)
	if live == nil {
		// It may exist without the labels by which it is watched, and be somebody else's.
		live, err = r.fetch(ctx, o)
		if err != nil {
			return err
		}
	}
	if live != nil && !owned(live, gw) {
		if _, account := o.(*corev1.ServiceAccount); account {
			return nil // one that exists may be used
		}
		return refused{fmt.Errorf("%s %s exists, and is not this Gateway's: delete it, or choose another name by the annotation gateway.istio.io/name-override",
			o.GetObjectKind().GroupVersionKind().Kind, o.GetName())}
	}
	if live != nil && r.lastApplied(key) == hash && contains(live, fields) {
		return nil
	}
	force := true
	_, err = r.dynamic.Resource(resourceOf(o)).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return refused{fmt.Errorf("%s %s: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err)}
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.applied[key] = hash
	r.mu.Unlock()
	return nil
}

func (r *run) lastApplied(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied[key]
}

// forget drops what is remembered of a Gateway that is gone.
func (r *run) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.applied {
		if parts := strings.SplitN(k, "/", 3); parts[1] == key.Namespace && strings.HasPrefix(parts[2], key.Name) {
			delete(r.applied, k) // another one's, too, if the names start alike: it is applied once more
		}
	}
}

// seen is an object as the informers know it.
func (r *run) seen(o deploy.Object) metav1.Object {
	var (
		out  metav1.Object
		err  error
		core = r.factory.managed.Core().V1()
		ns   = o.GetNamespace()
	)
	switch o.(type) {
	case *corev1.ServiceAccount:
		out, err = core.ServiceAccounts().Lister().ServiceAccounts(ns).Get(o.GetName())
	case *corev1.Service:
		out, err = core.Services().Lister().Services(ns).Get(o.GetName())
	case *appsv1.Deployment:
		out, err = r.factory.managed.Apps().V1().Deployments().Lister().Deployments(ns).Get(o.GetName())
	case *autoscalingv2.HorizontalPodAutoscaler:
		out, err = r.factory.managed.Autoscaling().V2().HorizontalPodAutoscalers().Lister().HorizontalPodAutoscalers(ns).Get(o.GetName())
	case *policyv1.PodDisruptionBudget:
		out, err = r.factory.managed.Policy().V1().PodDisruptionBudgets().Lister().PodDisruptionBudgets(ns).Get(o.GetName())
	}
	if err != nil {
		return nil
	}
	return out
}

func (r *run) fetch(ctx context.Context, o deploy.Object) (metav1.Object, error) {
	u, err := r.dynamic.Resource(resourceOf(o)).Namespace(o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

// contains tells whether a live object has every field that was rendered.
func contains(live metav1.Object, fields map[string]any) bool {
	have, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return false
	}
	for _, part := range []string{"metadata", "spec"} {
		if want, ok := fields[part]; ok && !covers(have[part], want) {
			return false
		}
	}
	return true
}

// covers tells whether have is want with, perhaps, further fields: those that the API server fills in.
func covers(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		fields, ok := have.(map[string]any)
		if !ok {
			return len(want) == 0
		}
		for key, value := range want {
			if !covers(fields[key], value) {
				return false
			}
		}
		return true
	case []any:
		list, ok := have.([]any)
		if !ok || len(list) != len(want) {
			return len(want) == 0 && len(list) == 0
		}
		for i := range want {
			if !covers(list[i], want[i]) {
				return false
			}
		}
		return true
	case nil:
		return true
	}
	return have == want
}

// prune deletes the objects of a Gateway that are not among keep.
func (r *run) prune(ctx context.Context, gw *gatewayv1.Gateway, keep map[string]bool) error {
	selector := labels.SelectorFromSet(labels.Set{deploy.LabelGatewayName: gw.Name})
	core := r.factory.managed.Core().V1()
	var found []deploy.Object
	collect(&found, "Deployment", appsv1.SchemeGroupVersion.String(), gw, r.factory.managed.Apps().V1().Deployments().Lister().Deployments(gw.Namespace).List, selector)
	collect(&found, "Service", "v1", gw, core.Services().Lister().Services(gw.Namespace).List, selector)
	collect(&found, "ServiceAccount", "v1", gw, core.ServiceAccounts().Lister().ServiceAccounts(gw.Namespace).List, selector)
	collect(&found, "HorizontalPodAutoscaler", autoscalingv2.SchemeGroupVersion.String(), gw, r.factory.managed.Autoscaling().V2().HorizontalPodAutoscalers().Lister().HorizontalPodAutoscalers(gw.Namespace).List, selector)
	collect(&found, "PodDisruptionBudget", policyv1.SchemeGroupVersion.String(), gw, r.factory.managed.Policy().V1().PodDisruptionBudgets().Lister().PodDisruptionBudgets(gw.Namespace).List, selector)
	var problems []error
	for _, o := range found {
		if keep[keyOf(o)] || o.GetDeletionTimestamp() != nil {
			continue
		}
		uid, background := o.GetUID(), metav1.DeletePropagationBackground
		err := r.dynamic.Resource(resourceOf(o)).Namespace(o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background,
		})
		if err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("delete %s: %w", keyOf(o), err))
			continue
		}
		r.mu.Lock()
		delete(r.applied, keyOf(o))
		r.mu.Unlock()
	}
	return errors.Join(problems...)
}

// collect appends the objects of a kind that a Gateway owns. Listers leave out the kind, so that it is set on a copy.
func collect[T deploy.Object](to *[]deploy.Object, kind, version string, gw *gatewayv1.Gateway, list func(labels.Selector) ([]T, error), selector labels.Selector) {
	all, err := list(selector)
	if err != nil {
		return // a lister of a cache has no errors
	}
	for _, o := range all {
		if !owned(o, gw) {
			continue
		}
		c, ok := o.DeepCopyObject().(deploy.Object)
		if !ok {
			continue
		}
		c.GetObjectKind().SetGroupVersionKind(schemaOf(version, kind))
		*to = append(*to, c)
	}
}

func schemaOf(version, kind string) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(version, kind)
}

func resourceOf(o deploy.Object) schema.GroupVersionResource {
	resource, _ := meta.UnsafeGuessKindToResource(o.GetObjectKind().GroupVersionKind())
	return resource
}
