package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var protoPosition = regexp.MustCompile(`^(?:proto:\s*|syntax error\s*)*\(line \d+:\d+\):\s*`)

// message decodes a kind whose spec is a protobuf message. The generated JSON methods of these types accept unknown fields,
// hence the spec is decoded apart. status belongs to controllers and is not held against the user.
func (d *decoder) message(at ObjectError, k kind, raw []byte, o Object) {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		d.fail(at, "", jsonReason(err))
		return
	}
	spec := parts["spec"]
	delete(parts, "spec")
	rest, err := json.Marshal(parts)
	if err != nil {
		d.fail(at, "", err.Error())
		return
	}
	d.strict(at, rest, o)
	if len(spec) == 0 || string(spec) == "null" {
		return
	}
	err = UnmarshalMessage(spec, k.spec(o), protojson.UnmarshalOptions{})
	if err != nil && d.served {
		spec, err = d.withoutUnknown(at, k.spec(o), spec)
	}
	if err != nil {
		field, reason := explainMessage(k.spec(o), spec, "spec", err)
		d.fail(at, field, reason)
	}
}

// withoutUnknown decodes a message once more, without the fields that it does not have, each of which is reported. It returns what
// it decoded.
func (d *decoder) withoutUnknown(at ObjectError, m proto.Message, spec []byte) ([]byte, error) {
	var value any
	numbers := json.NewDecoder(bytes.NewReader(spec))
	numbers.UseNumber()
	if err := numbers.Decode(&value); err != nil {
		return spec, err
	}
	prune(m.ProtoReflect().Descriptor(), value, "spec", func(field, message string) {
		d.unknown(at, field, message+" has no such field")
	})
	pruned, err := json.Marshal(value)
	if err != nil {
		return spec, err
	}
	proto.Reset(m)
	return pruned, UnmarshalMessage(pruned, m, protojson.UnmarshalOptions{})
}

// prune removes from a JSON value the fields that a message type does not have.
func prune(m protoreflect.MessageDescriptor, value any, path string, removed func(path, message string)) {
	fields, ok := value.(map[string]any)
	if !ok || strings.HasPrefix(string(m.FullName()), "google.protobuf.") {
		return
	}
	for _, name := range sortedKeys(fields) {
		f := m.Fields().ByJSONName(name)
		if f == nil {
			f = m.Fields().ByTextName(name)
		}
		at := path + "." + name
		switch {
		case f == nil:
			delete(fields, name)
			removed(at, string(m.Name()))
		case f.IsMap():
			entries, _ := fields[name].(map[string]any)
			for _, key := range sortedKeys(entries) {
				pruneOne(f.MapValue(), entries[key], at+"."+key, removed)
			}
		case f.IsList():
			items, _ := fields[name].([]any)
			for i, item := range items {
				pruneOne(f, item, fmt.Sprintf("%s[%d]", at, i), removed)
			}
		default:
			pruneOne(f, fields[name], at, removed)
		}
	}
}

func pruneOne(f protoreflect.FieldDescriptor, value any, path string, removed func(path, message string)) {
	if f.Kind() == protoreflect.MessageKind {
		prune(f.Message(), value, path, removed)
	}
}

// explainMessage finds the path of what protojson refused, which it does not tell. The message itself is at root.
func explainMessage(m proto.Message, data []byte, root string, err error) (field, reason string) {
	reason = strings.ReplaceAll(protoPosition.ReplaceAllString(err.Error(), ""), "\u00a0", " ")
	var value any
	if json.Unmarshal(data, &value) != nil {
		return root, reason
	}
	if path, why := misfit(m.ProtoReflect().Descriptor(), value, root); path != "" {
		return path, why
	}
	return root, reason
}

// UnmarshalKnown decodes JSON into m as UnmarshalMessage does, but for the fields that m does not have: their paths are returned. Unlike
// protojson's DiscardUnknown it takes no value for a default that is not one of its enumeration's. An error begins with the path of what
// is wrong; path is that of m itself.
func UnmarshalKnown(data []byte, m proto.Message, path string) (unknown []string, err error) {
	var value any
	numbers := json.NewDecoder(bytes.NewReader(data))
	numbers.UseNumber()
	if err := numbers.Decode(&value); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	prune(m.ProtoReflect().Descriptor(), value, path, func(field, _ string) { unknown = append(unknown, field) })
	pruned, err := json.Marshal(value)
	if err == nil {
		err = UnmarshalMessage(pruned, m, protojson.UnmarshalOptions{})
	}
	if err != nil {
		at, reason := explainMessage(m, pruned, path, err)
		return unknown, fmt.Errorf("%s: %s", at, reason)
	}
	return unknown, nil
}

// FitMessage checks JSON against the fields of m, without decoding it. Its error begins with the path of the first field that m does
// not have, or whose value is not of its shape; path is that of m itself. What only protojson can tell is not found.
func FitMessage(m proto.Message, data []byte, path string) error {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if at, why := misfit(m.ProtoReflect().Descriptor(), value, path); at != "" {
		return fmt.Errorf("%s: %s", at, why)
	}
	return nil
}

// misfit walks a JSON value along a message type and returns the first place, in the order of the fields' names, that does
// not fit. It knows the shapes that people get wrong; for the rest the path is empty.
func misfit(m protoreflect.MessageDescriptor, value any, path string) (at, why string) {
	if strings.HasPrefix(string(m.FullName()), "google.protobuf.") {
		return "", ""
	}
	fields, ok := value.(map[string]any)
	if !ok {
		return path, fmt.Sprintf("a %s cannot be used here, want an object", jsonType(value))
	}
	for _, name := range sortedKeys(fields) {
		f := m.Fields().ByJSONName(name)
		if f == nil {
			f = m.Fields().ByTextName(name)
		}
		if f == nil {
			return path + "." + name, fmt.Sprintf("%s has no such field", m.Name())
		}
		if at, why := misfitField(f, fields[name], path+"."+name); at != "" {
			return at, why
		}
	}
	return "", ""
}

func misfitField(f protoreflect.FieldDescriptor, value any, path string) (at, why string) {
	switch {
	case value == nil:
		return "", ""
	case f.IsMap():
		entries, ok := value.(map[string]any)
		if !ok {
			return path, fmt.Sprintf("a %s cannot be used here, want an object", jsonType(value))
		}
		for _, key := range sortedKeys(entries) {
			if at, why := misfitOne(f.MapValue(), entries[key], path+"."+key); at != "" {
				return at, why
			}
		}
		return "", ""
	case f.IsList():
		items, ok := value.([]any)
		if !ok {
			return path, fmt.Sprintf("a %s cannot be used here, want a list", jsonType(value))
		}
		for i, item := range items {
			if at, why := misfitOne(f, item, fmt.Sprintf("%s[%d]", path, i)); at != "" {
				return at, why
			}
		}
		return "", ""
	}
	return misfitOne(f, value, path)
}

func misfitOne(f protoreflect.FieldDescriptor, value any, path string) (at, why string) {
	text, isText := value.(string)
	switch f.Kind() {
	case protoreflect.MessageKind:
		if f.Message().FullName() == durationMessage {
			if why := misfitDuration(value); why != "" {
				return path, why
			}
			return "", ""
		}
		return misfit(f.Message(), value, path)
	case protoreflect.EnumKind:
		if isText && f.Enum().Values().ByName(protoreflect.Name(text)) == nil {
			return path, fmt.Sprintf("%q is not one of %s", text, strings.Join(enumNames(f.Enum()), ", "))
		}
		if _, isNumber := value.(float64); !isText && !isNumber {
			return path, fmt.Sprintf("a %s cannot be used here, want one of %s", jsonType(value), strings.Join(enumNames(f.Enum()), ", "))
		}
	case protoreflect.StringKind:
		if !isText {
			return path, fmt.Sprintf("a %s cannot be used here, want a string", jsonType(value))
		}
	case protoreflect.BoolKind:
		if _, ok := value.(bool); !ok {
			return path, fmt.Sprintf("a %s cannot be used here, want true or false", jsonType(value))
		}
	case protoreflect.Uint32Kind, protoreflect.Int32Kind:
		if n, ok := value.(float64); !isText && (!ok || n != float64(int64(n)) || f.Kind() == protoreflect.Uint32Kind && n < 0) {
			return path, fmt.Sprintf("%v cannot be used here, want a whole number", value)
		}
	}
	return "", ""
}

func enumNames(e protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range e.Values().Len() {
		names = append(names, string(e.Values().Get(i).Name()))
	}
	return names
}

func jsonType(value any) string {
	switch value.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	}
	return "null"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
