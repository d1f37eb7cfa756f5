package cluster

import (
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// builtinCodecs decode the kinds of Kubernetes itself, from protobuf where the server has it.
func builtinCodecs() (runtime.NegotiatedSerializer, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, appsv1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the kinds of Kubernetes: %w", err)
		}
	}
	return newPrunedCodecs(scheme, serializer.NewCodecFactory(scheme).WithoutConversion()), nil
}

// servedCodecs decode custom resources, which come as JSON, into items.
type servedCodecs struct {
	runtime.NegotiatedSerializer
	decoder servedDecoder
}

// newServedCodecs takes the framing and the status of the API from the built-in kinds' codecs.
func newServedCodecs(builtin runtime.NegotiatedSerializer) servedCodecs {
	return servedCodecs{NegotiatedSerializer: builtin, decoder: servedDecoder{served: kube.NewServed()}}
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c servedCodecs) SupportedMediaTypes() []runtime.SerializerInfo {
	infos := slices.Clone(c.NegotiatedSerializer.SupportedMediaTypes())
	return slices.DeleteFunc(infos, func(i runtime.SerializerInfo) bool { return i.MediaType != mediaJSON })
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (c servedCodecs) DecoderToVersion(runtime.Decoder, runtime.GroupVersioner) runtime.Decoder {
	return c.decoder
}

// item is a custom resource as it was served: the object, or what keeps it from being used. It has the metadata in both cases.
type item struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	object            kube.Object // nil when there are errors that are not warnings
	errs              []kube.ObjectError
}

// DeepCopyObject implements runtime.Object. Items are not modified, thus this one does.
func (i *item) DeepCopyObject() runtime.Object { return i }

// itemList is a list as it was served.
type itemList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []*item `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *itemList) DeepCopyObject() runtime.Object { return l }

// servedDecoder decodes objects into items, lists of them, and the status of the API. It is stateless.
type servedDecoder struct {
	served kube.Served
}

// header is what the decoder tells objects apart by, and the metadata, of which only this is read here.
type header struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		ResourceVersion string            `json:"resourceVersion"`
		Continue        string            `json:"continue"`
		Remaining       *int64            `json:"remainingItemCount"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// Decode implements runtime.Decoder.
func (d servedDecoder) Decode(data []byte, _ *schema.GroupVersionKind, _ runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	var h header
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, nil, fmt.Errorf("decode what the API server sent: %w", err)
	}
	gvk := h.GroupVersionKind()
	switch {
	case h.APIVersion == "v1" && h.Kind == "Status":
		status := &metav1.Status{}
		if err := json.Unmarshal(data, status); err != nil {
			return nil, nil, fmt.Errorf("decode a status that the API server sent: %w", err)
		}
		return status, &gvk, nil
	case h.Items != nil:
		list := &itemList{TypeMeta: h.TypeMeta, Items: make([]*item, 0, len(h.Items))}
		list.ListMeta = metav1.ListMeta{ResourceVersion: h.Metadata.ResourceVersion, Continue: h.Metadata.Continue, RemainingItemCount: h.Metadata.Remaining}
		for _, raw := range h.Items {
			var own header
			if err := json.Unmarshal(raw, &own); err != nil {
				return nil, nil, fmt.Errorf("decode an item of a list that the API server sent: %w", err)
			}
			list.Items = append(list.Items, d.item(own, raw))
		}
		return list, &gvk, nil
	}
	return d.item(h, data), &gvk, nil
}

func (d servedDecoder) item(h header, raw []byte) *item {
	i := &item{TypeMeta: h.TypeMeta}
	i.Name, i.Namespace, i.ResourceVersion, i.Annotations = h.Metadata.Name, h.Metadata.Namespace, h.Metadata.ResourceVersion, h.Metadata.Annotations
	if i.Name == "" {
		return i // a bookmark
	}
	object, errs := d.served.Decode(raw)
	if object != nil {
		more := kube.Validate(object)
		if !slices.ContainsFunc(more, fatal) {
			i.object = object
		}
		errs = append(errs, more...)
	}
	i.errs = errs
	return i
}

func fatal(e kube.ObjectError) bool { return !e.Warning }
