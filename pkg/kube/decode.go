package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Decode reads a file of YAML documents or JSON. Each object that is whole is returned; each one that is not has at least
// one error and is left out. Fields that the kind does not have are errors. A kind that is not known is a warning. Lists are
// expanded. Objects of namespaced kinds without a namespace are in "default"; managedFields are dropped.
func Decode(file string, data []byte) ([]Decoded, []ObjectError) {
	d := decoder{file: file, table: newKindTable()}
	for _, doc := range splitDocuments(data) {
		d.document(doc)
	}
	return d.objects, d.errs
}

// DecodeServed reads one object as an API server serves it, in JSON. An API server has checked it against a schema that may be
// newer than the Go type, thus fields that the kind does not have are only warnings here. The object is nil when it cannot be
// used.
func DecodeServed(data []byte) (Object, []ObjectError) {
	return NewServed().Decode(data)
}

// Served decodes objects as an API server serves them.
type Served struct{ table kindTable }

// NewServed returns what does DecodeServed many times.
func NewServed() Served { return Served{table: newKindTable()} }

// Decode is DecodeServed.
func (s Served) Decode(data []byte) (Object, []ObjectError) {
	d := decoder{table: s.table, served: true}
	d.object(ObjectError{}, data)
	if len(d.objects) == 0 {
		return nil, d.errs
	}
	return d.objects[0].Object, d.errs
}

// decoder collects what one call of Decode finds.
type decoder struct {
	file    string
	served  bool // unknown fields are warnings
	table   kindTable
	objects []Decoded
	errs    []ObjectError
}

// document is one YAML document and the line, from 1, of its first byte.
type document struct {
	line int
	data []byte
}

// splitDocuments cuts at lines that are "---" or start with "--- ". Such a line cannot be part of a scalar.
func splitDocuments(data []byte) []document {
	var docs []document
	current := document{line: 1}
	flush := func(next int) {
		if hasContent(current.data) {
			docs = append(docs, trimBlankLines(current))
		}
		current = document{line: next}
	}
	line := 0
	for rest := data; len(rest) > 0; {
		line++
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			end = len(rest)
		}
		text := rest[:end]
		rest = rest[end:]
		marker, comment, _ := bytes.Cut(bytes.TrimRight(text, "\r\n\t "), []byte(" "))
		switch {
		case string(marker) == "---" && (len(comment) == 0 || bytes.HasPrefix(bytes.TrimSpace(comment), []byte("#"))):
			flush(line + 1)
		case string(marker) == "---":
			flush(line)
			current.data = append(current.data, bytes.TrimPrefix(text, []byte("---"))...)
		case string(marker) == "...":
			flush(line + 1)
		default:
			current.data = append(current.data, text...)
		}
	}
	flush(line)
	return docs
}

// trimBlankLines moves the start to the first line with content, which is the one to show to people.
func trimBlankLines(d document) document {
	for {
		first, rest, found := bytes.Cut(d.data, []byte("\n"))
		if !found || hasContent(first) {
			return d
		}
		d.line, d.data = d.line+1, rest
	}
}

// hasContent reports whether there is anything but blank lines and comments.
func hasContent(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return true
		}
	}
	return false
}

var yamlLine = regexp.MustCompile(`(?:yaml: )?line (\d+): `)

func (d *decoder) document(doc document) {
	at := ObjectError{File: d.file, Line: doc.line}
	raw, err := yaml.YAMLToJSONStrict(doc.data)
	if err != nil {
		d.errs = append(d.errs, syntaxError(at, err))
		return
	}
	d.object(at, raw)
}

// syntaxError moves the parser's line, which counts from the start of the document, to the file's.
func syntaxError(at ObjectError, err error) ObjectError {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		if n, convErr := strconv.Atoi(found[1]); convErr == nil {
			at.Line += n - 1
			text = yamlLine.ReplaceAllString(text, "")
		}
	}
	text = strings.TrimPrefix(text, "unmarshal errors:\n")
	at.Reason = "not valid YAML: " + strings.Join(strings.Fields(text), " ")
	return at
}

// header is what identifies an object.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

func (d *decoder) object(at ObjectError, raw []byte) {
	if string(bytes.TrimSpace(raw)) == "null" {
		return
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		at.Reason = fmt.Sprintf("not a Kubernetes object: %s", jsonReason(err))
		d.errs = append(d.errs, at)
		return
	}
	at.Kind, at.Namespace, at.Name = h.Kind, h.Metadata.Namespace, h.Metadata.Name
	if h.Kind == "" || h.APIVersion == "" {
		at.Field, at.Reason = "kind", "not a Kubernetes object: apiVersion and kind are required"
		d.errs = append(d.errs, at)
		return
	}
	if h.Kind == "List" && h.APIVersion == "v1" || strings.HasSuffix(h.Kind, "List") && h.Items != nil {
		d.list(at, h)
		return
	}
	gv, err := schema.ParseGroupVersion(h.APIVersion)
	if err != nil {
		at.Field, at.Reason = "apiVersion", fmt.Sprintf("%q is not group/version", h.APIVersion)
		d.errs = append(d.errs, at)
		return
	}
	k, known := d.table[gv.WithKind(h.Kind)]
	if !known {
		at.Warning, at.Reason = true, fmt.Sprintf("%s %s is not a kind the mesh reads; it is ignored", h.APIVersion, h.Kind)
		d.errs = append(d.errs, at)
		return
	}
	if at.Namespace == "" && !k.clusterWide {
		at.Namespace = metav1.NamespaceDefault
	}
	d.typed(at, k, raw)
}

// list decodes the items of a List; those of a typed list, such as PodList, may leave out their own kind.
func (d *decoder) list(at ObjectError, h header) {
	itemKind := strings.TrimSuffix(h.Kind, "List")
	for i, item := range h.Items {
		if itemKind != "" {
			item = withDefaultKind(item, h.APIVersion, itemKind)
		}
		before := len(d.errs)
		d.object(ObjectError{File: at.File, Line: at.Line}, item)
		for e := before; e < len(d.errs); e++ {
			d.errs[e].Field = strings.TrimSuffix(fmt.Sprintf("items[%d].%s", i, d.errs[e].Field), ".")
		}
	}
}

func withDefaultKind(item json.RawMessage, apiVersion, kind string) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(item, &fields) != nil || fields == nil || fields["kind"] != nil {
		return item
	}
	fields["apiVersion"], _ = json.Marshal(apiVersion)
	fields["kind"], _ = json.Marshal(kind)
	out, err := json.Marshal(fields)
	if err != nil {
		return item
	}
	return out
}

// typed decodes an object of a known kind, strictly.
func (d *decoder) typed(at ObjectError, k kind, raw []byte) {
	o := k.empty()
	before := len(d.errs)
	if k.spec == nil {
		d.strict(at, raw, o)
	} else {
		d.message(at, k, raw, o)
	}
	if at.Name == "" && o.GetGenerateName() == "" && len(d.errs) == before {
		d.fail(at, "metadata.name", "a name is required")
	}
	if slices.ContainsFunc(d.errs[before:], func(e ObjectError) bool { return !e.Warning }) {
		return
	}
	o.GetObjectKind().SetGroupVersionKind(k.gvk)
	o.SetManagedFields(nil)
	if k.clusterWide {
		o.SetNamespace("")
	} else {
		o.SetNamespace(at.Namespace)
	}
	d.objects = append(d.objects, Decoded{Object: o, GVK: k.gvk, File: at.File, Line: at.Line, Manifest: raw})
}

// unknown reports a field that the kind does not have.
func (d *decoder) unknown(at ObjectError, field, reason string) {
	at.Warning = d.served
	if d.served {
		reason += " in this version of the mesh; it is ignored"
	}
	d.fail(at, field, reason)
}

func (d *decoder) fail(at ObjectError, field, reason string) {
	at.Field, at.Reason = field, reason
	d.errs = append(d.errs, at)
}

var (
	unknownField = regexp.MustCompile(`unknown field "(.+)"`)
	badType      = regexp.MustCompile(`cannot unmarshal (\S+) into Go (?:struct field|value)(?: (\S+))? of type (\S+)`)
)

// strict decodes a kind that is a plain Go struct. Duplicate and unknown fields are errors, and names are case-sensitive.
func (d *decoder) strict(at ObjectError, raw []byte, o Object) {
	unknown, err := kjson.UnmarshalStrict(raw, o)
	if err != nil {
		field := ""
		if found := badType.FindStringSubmatch(err.Error()); found != nil {
			_, field, _ = strings.Cut(found[2], ".")
		}
		d.fail(at, field, jsonReason(err))
		return
	}
	for _, e := range unknown {
		if found := unknownField.FindStringSubmatch(e.Error()); found != nil {
			d.unknown(at, found[1], fmt.Sprintf("%s has no such field", at.Kind))
			continue
		}
		d.fail(at, "", e.Error())
	}
}

func jsonReason(err error) string {
	text := strings.TrimPrefix(err.Error(), "json: ")
	if found := badType.FindStringSubmatch(text); found != nil {
		return fmt.Sprintf("a %s cannot be used here, want %s", found[1], found[3])
	}
	return text
}
