// Package crdschema checks objects by the schemas of their CustomResourceDefinitions, as an API server does before it stores them: types,
// enumerations, patterns, bounds, lists whose items have to differ, and rules in CEL.
package crdschema

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Schemas are those of the kinds that definitions define. They are read when an object needs them. It is not for concurrent use.
type Schemas struct {
	documents map[schema.GroupKind][]byte
	versions  map[schema.GroupKind]map[string]*version
}

// version is what one version of a kind is checked by.
type version struct {
	structural *structural.Structural
	values     validation.SchemaValidator
	rules      *cel.Validator // nil without any
}

// Where a definition says which kind it defines. What it says of the kind's fields stands farther to the right.
var (
	definedGroup = regexp.MustCompile(`(?m)^  group: (\S+)$`)
	definedKind  = regexp.MustCompile(`(?m)^    kind: (\S+)$`)
)

// New takes CustomResourceDefinitions, as documents of YAML in block style, indented by two.
func New(files ...[]byte) *Schemas {
	s := &Schemas{documents: map[schema.GroupKind][]byte{}, versions: map[schema.GroupKind]map[string]*version{}}
	for _, file := range files {
		for document := range bytes.SplitSeq(file, []byte("\n---")) {
			group, kind := definedGroup.FindSubmatch(document), definedKind.FindSubmatch(document)
			if group != nil && kind != nil {
				s.documents[schema.GroupKind{Group: string(group[1]), Kind: string(kind[1])}] = document
			}
		}
	}
	return s
}

// Check returns what an API server would refuse an object for; nothing if it is of a kind, or a version of it, that is not defined here.
func (s *Schemas) Check(d kube.Decoded) []kube.ObjectError {
	var object map[string]any
	if err := json.Unmarshal(d.Manifest, &object); err != nil {
		return s.failed(d, err)
	}
	apiVersion, _ := object["apiVersion"].(string)
	group, name, _ := strings.Cut(apiVersion, "/")
	v, err := s.version(schema.GroupKind{Group: group, Kind: d.GVK.Kind}, name)
	if err != nil {
		return s.failed(d, err)
	}
	if v == nil {
		return nil
	}
	var out []kube.ObjectError
	for _, e := range v.check(object) {
		// Some name the field once more.
		out = append(out, problem(d, e.Field, strings.ReplaceAll(e.ErrorBody(), e.Field+" in body ", "")))
	}
	return out
}

// failed says that it could not be found out whether an object is valid.
func (s *Schemas) failed(d kube.Decoded, err error) []kube.ObjectError {
	return []kube.ObjectError{problem(d, "", fmt.Sprintf("its schema could not be applied: %v", err))}
}

func problem(d kube.Decoded, at, reason string) kube.ObjectError {
	return kube.ObjectError{
		File: d.File, Line: d.Line, Kind: d.GVK.Kind, Namespace: d.Object.GetNamespace(), Name: d.Object.GetName(),
		Field: at, Reason: reason,
	}
}

// version returns one of a kind; nil when there is none.
func (s *Schemas) version(kind schema.GroupKind, name string) (*version, error) {
	document, defined := s.documents[kind]
	if !defined {
		return nil, nil
	}
	versions, read := s.versions[kind]
	if !read {
		var err error
		if versions, err = readVersions(document); err != nil {
			return nil, fmt.Errorf("definition of %s: %w", kind, err)
		}
		s.versions[kind] = versions
	}
	return versions[name], nil
}

func readVersions(document []byte) (map[string]*version, error) {
	definition := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(document, definition); err != nil {
		return nil, err
	}
	out := map[string]*version{}
	for _, v := range definition.Spec.Versions {
		if !v.Served || v.Schema == nil {
			continue
		}
		properties := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, properties, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		tree, err := structural.NewStructural(properties)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		values, _, err := validation.NewSchemaValidator(properties)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		out[v.Name] = &version{structural: tree, values: values}
	}
	return out, nil
}

// check applies the schema. It changes the object: the defaults are filled in, as the rules expect them. Of status nothing is read: nobody
// can create an object with one. Like in an API server, rules are looked at when the values are what they are to be.
func (v *version) check(object map[string]any) field.ErrorList {
	delete(object, "status")
	defaulting.Default(object, v.structural)
	errs := validation.ValidateCustomResource(nil, object, v.values)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.structural, object)...)
	if len(errs) > 0 {
		return errs
	}
	if v.rules == nil {
		v.rules = cel.NewValidator(v.structural, true, celconfig.PerCallLimit)
	}
	if v.rules == nil {
		return nil // there are none
	}
	errs, _ = v.rules.Validate(context.Background(), nil, v.structural, object, nil, celconfig.RuntimeCELCostBudget)
	return errs
}
