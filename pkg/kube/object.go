package kube

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Object is any typed Kubernetes object.
type Object interface {
	metav1.Object
	runtime.Object
}

// Decoded is an object and the place it was read from.
type Decoded struct {
	Object Object
	// GVK is that of the Go type: all served versions of a mesh kind are decoded to one.
	GVK schema.GroupVersionKind
	// File as passed to Decode.
	File string
	// Line, from 1, on which the object's document starts.
	Line int
	// Manifest is the object as it was written, in JSON.
	Manifest []byte
}

// Name returns the namespace and name.
func (d Decoded) Name() types.NamespacedName { return NameOf(d.Object) }

// NameOf returns the namespace and name of an object.
func NameOf(o Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// ObjectError says what is wrong with one object, or with a document that could not be read as one.
type ObjectError struct {
	// File and Line (from 1) of the document; empty when the object does not come from a file.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Kind, Namespace and Name of the object as far as they could be read.
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Field is the path, such as spec.rules[0].from[0].source.ipBlocks[1]; empty when it is about the whole object.
	Field string `json:"field,omitempty"`
	// Reason is a sentence without a full stop.
	Reason string `json:"reason"`
	// Warning is set when the object is used nevertheless, or is of a kind that is not read at all.
	Warning bool `json:"warning,omitempty"`
}

// Error is file:line: Kind namespace/name: field: reason.
func (e ObjectError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Kind != "" {
		b.WriteString(e.Kind)
		if e.Name != "" {
			b.WriteString(" " + strings.TrimPrefix(e.Namespace+"/"+e.Name, "/"))
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}
