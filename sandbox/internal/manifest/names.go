package manifest

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

// badName is a name that no API server would take. Names become paths of files that root writes, so none may pass.
type badName struct{ field, reason string }

// check returns the first name of obj that is none, or nil.
func check(apiVersion, kind string, obj Object) *badName {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return &badName{"apiVersion", fmt.Sprintf("%q: want group/version, such as apps/v1, or v1", apiVersion)}
	}
	type named struct {
		field, value string
		problems     []string
	}
	names := []named{
		{"apiVersion", gv.Version, validation.IsDNS1035Label(gv.Version)},
		{"kind", kind, validation.IsDNS1035Label(strings.ToLower(kind))},
		{"metadata.name", obj.GetName(), nameRule(gv.Group, kind)(obj.GetName(), false)},
	}
	if gv.Group != "" {
		names = append(names, named{"apiVersion", gv.Group, validation.IsDNS1123Subdomain(gv.Group)})
	}
	if namespace := obj.GetNamespace(); namespace != "" {
		names = append(names, named{"metadata.namespace", namespace, validation.IsDNS1123Label(namespace)})
	}
	if field, spec := podSpec(obj); spec != nil {
		for i, v := range spec.Volumes {
			names = append(names, named{fmt.Sprintf("%s.volumes[%d].name", field, i), v.Name, validation.IsDNS1123Label(v.Name)})
		}
		for i, c := range spec.InitContainers {
			names = append(names, named{fmt.Sprintf("%s.initContainers[%d].name", field, i), c.Name, validation.IsDNS1123Label(c.Name)})
		}
		for i, c := range spec.Containers {
			names = append(names, named{fmt.Sprintf("%s.containers[%d].name", field, i), c.Name, validation.IsDNS1123Label(c.Name)})
		}
	}
	for _, n := range names {
		if len(n.problems) > 0 {
			return &badName{n.field, fmt.Sprintf("%q cannot be used, choose another: %s", n.value, strings.Join(n.problems, "; "))}
		}
	}
	return nil
}

// nameRule is what the API server asks of the names of a kind.
func nameRule(group, kind string) apivalidation.ValidateNameFunc {
	switch {
	case group == "rbac.authorization.k8s.io": // "system:node"
		return isPathSegment
	case group == "" && (kind == "Namespace" || kind == "Service"):
		return apivalidation.NameIsDNSLabel
	}
	return apivalidation.NameIsDNSSubdomain
}

// isPathSegment tells what keeps a name from being part of a path.
func isPathSegment(name string, _ bool) []string {
	if name == "." || name == ".." {
		return []string{"it means a directory"}
	}
	if strings.ContainsAny(name, "/%") {
		return []string{"it may not contain / or %"}
	}
	return nil
}

// podSpec is the pods' part of a kind that makes pods.
func podSpec(obj Object) (field string, spec *corev1.PodSpec) {
	switch o := obj.(type) {
	case *corev1.Pod:
		return "spec", &o.Spec
	case *appsv1.Deployment:
		return "spec.template.spec", &o.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		return "spec.template.spec", &o.Spec.Template.Spec
	case *appsv1.StatefulSet:
		return "spec.template.spec", &o.Spec.Template.Spec
	case *appsv1.DaemonSet:
		return "spec.template.spec", &o.Spec.Template.Spec
	}
	return "", nil
}

// dropServerFields takes away what only the API server sets.
func dropServerFields(obj Object) {
	obj.SetUID("")
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
}
