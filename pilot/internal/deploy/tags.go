package deploy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

const (
	// defaultValidator is the webhook configuration for what names no revision; its revision is the default one.
	defaultValidator = "istiod-default-validator"
	defaultTag       = "default"
)

func webhooks(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: resource}
}

// onTag enqueues all Gateways when a tag may lead to another revision than before.
func (r *run) onTag(o any) {
	m, ok := o.(metav1.Object)
	if ok && (m.GetLabels()[deploy.LabelTag] != "" || m.GetName() == defaultValidator) {
		r.enqueueAll()
	}
}

// tags gives the revision that each tag leads to. A tag is a Service beside the control plane, or, in its older form, a webhook
// configuration, with the labels istio.io/tag and istio.io/rev; the Service counts if there are both.
func (r *run) tags() map[string]string {
	out := map[string]string{}
	add := func(o runtime.Object) {
		m, ok := o.(metav1.Object)
		if !ok {
			return
		}
		if tag, revision := m.GetLabels()[deploy.LabelTag], m.GetLabels()[deploy.LabelRevision]; tag != "" && revision != "" {
			out[tag] = revision
		}
	}
	if o, err := r.factory.validator.Get(defaultValidator); err == nil {
		if m, ok := o.(metav1.Object); ok && m.GetLabels()[deploy.LabelRevision] != "" {
			out[defaultTag] = m.GetLabels()[deploy.LabelRevision]
		}
	}
	// Listers of caches have no errors.
	configurations, _ := r.factory.mutating.List(labels.Everything())
	for _, o := range configurations {
		add(o)
	}
	services, _ := r.factory.system.Core().V1().Services().Lister().Services(r.cfg.Namespace).List(labels.Everything())
	for _, s := range services {
		add(s)
	}
	return out
}
