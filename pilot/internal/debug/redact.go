package debug

import (
	"fmt"

	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// redacted is what Envoy shows instead of a secret, too.
const redacted = "[redacted]"

// withoutSecrets returns a message without what its definition says is sensitive. The given one is not changed.
func withoutSecrets(content *anypb.Any) (*anypb.Any, error) {
	m, err := content.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	changed, err := redact(m.ProtoReflect(), false)
	if err != nil {
		return nil, err
	}
	if !changed {
		return content, nil
	}
	return anypb.New(m)
}

// redact replaces what is sensitive in a message, which all of it is if secret. It reports whether there was anything.
func redact(m protoreflect.Message, secret bool) (changed bool, err error) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		return redactPacked(packed, secret)
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		var done bool
		done, err = redactField(m, field, value, secret || sensitive(field))
		changed = changed || done
		return err == nil
	})
	return changed, err
}

func sensitive(field protoreflect.FieldDescriptor) bool {
	marked, _ := proto.GetExtension(field.Options(), annotations.E_Sensitive).(bool)
	return marked
}

// redactPacked looks into an Any. What is of no known type stays as it is: nothing here makes any.
func redactPacked(packed *anypb.Any, secret bool) (bool, error) {
	inner, err := packed.UnmarshalNew()
	if err != nil {
		if secret {
			packed.Value = nil
		}
		return secret, nil
	}
	changed, err := redact(inner.ProtoReflect(), secret)
	if err != nil || !changed {
		return false, err
	}
	if err := packed.MarshalFrom(inner); err != nil {
		return false, fmt.Errorf("marshal it: %w", err)
	}
	return true, nil
}

func redactField(m protoreflect.Message, field protoreflect.FieldDescriptor, value protoreflect.Value, secret bool) (changed bool, err error) {
	each := func(kind protoreflect.FieldDescriptor, v protoreflect.Value, set func(protoreflect.Value)) {
		if err != nil {
			return
		}
		switch {
		case kind.Message() != nil:
			var done bool
			done, err = redact(v.Message(), secret)
			changed = changed || done
		case secret:
			set(hide(kind, v))
			changed = true
		}
	}
	switch {
	case field.IsList():
		list := value.List()
		for i := range list.Len() {
			each(field, list.Get(i), func(v protoreflect.Value) { list.Set(i, v) })
		}
	case field.IsMap():
		value.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
			each(field.MapValue(), v, func(v protoreflect.Value) { value.Map().Set(key, v) })
			return err == nil
		})
	default:
		each(field, value, func(v protoreflect.Value) { m.Set(field, v) })
	}
	return changed, err
}

// hide is what a value is replaced by.
func hide(kind protoreflect.FieldDescriptor, old protoreflect.Value) protoreflect.Value {
	switch kind.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(redacted)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(redacted))
	case protoreflect.EnumKind:
		return old
	default:
		return kind.Default()
	}
}
