package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const durationMessage = "google.protobuf.Duration"

// UnmarshalMessage decodes JSON into m as protojson does, and takes durations in the form in which people and the CRDs write them
// besides: "300ms", "1m30s", "1h".
func UnmarshalMessage(data []byte, m proto.Message, options protojson.UnmarshalOptions) error {
	err := options.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return err
	}
	if !canonicalDurations(m.ProtoReflect().Descriptor(), value) {
		return err
	}
	canonical, encodeErr := json.Marshal(value)
	if encodeErr != nil {
		return err
	}
	proto.Reset(m)
	return options.Unmarshal(canonical, m)
}

// canonicalDurations rewrites the durations in a JSON value along a message type to seconds, in place, and says whether there were
// any to rewrite.
func canonicalDurations(m protoreflect.MessageDescriptor, value any) (changed bool) {
	fields, ok := value.(map[string]any)
	if !ok {
		return false
	}
	for name, v := range fields {
		f := m.Fields().ByJSONName(name)
		if f == nil {
			f = m.Fields().ByTextName(name)
		}
		switch {
		case f == nil:
		case f.IsMap():
			entries, _ := v.(map[string]any)
			for key, entry := range entries {
				changed = canonicalDuration(f.MapValue(), entry, func(s string) { entries[key] = s }) || changed
			}
		case f.IsList():
			items, _ := v.([]any)
			for i, item := range items {
				changed = canonicalDuration(f, item, func(s string) { items[i] = s }) || changed
			}
		default:
			changed = canonicalDuration(f, v, func(s string) { fields[name] = s }) || changed
		}
	}
	return changed
}

func canonicalDuration(f protoreflect.FieldDescriptor, value any, set func(string)) (changed bool) {
	if f.Kind() != protoreflect.MessageKind {
		return false
	}
	if f.Message().FullName() != durationMessage {
		return canonicalDurations(f.Message(), value)
	}
	text, ok := value.(string)
	if !ok {
		return false
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return false
	}
	set(strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s")
	return true
}

// misfitDuration explains what cannot be read as one.
func misfitDuration(value any) string {
	text, ok := value.(string)
	if !ok {
		return fmt.Sprintf("a %s cannot be used here, want a duration such as 1.5s or 300ms", jsonType(value))
	}
	if _, err := time.ParseDuration(text); err != nil {
		return fmt.Sprintf("%q is not a duration such as 1.5s, 300ms or 1m30s", text)
	}
	return ""
}
