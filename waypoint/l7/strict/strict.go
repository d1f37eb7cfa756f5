// Package strict refuses configuration that the engine would not honour. It walks a message and compares every field that is set with
// a table of what is supported: what the table does not list is an error with the path of the field, never ignored.
package strict

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// FieldError says what is wrong with which field.
type FieldError struct {
	Path   string // "virtual_hosts[0].routes[3].match"
	Reason string
}

func (e *FieldError) Error() string { return e.Path + ": " + e.Reason }

// Errorf makes an error about a field.
func Errorf(path, format string, args ...any) error {
	return &FieldError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// At puts a field's name before the path of an error about something inside it; nil stays nil.
func At(err error, field string) error {
	if err == nil {
		return nil
	}
	var fe *FieldError
	if !errors.As(err, &fe) {
		return &FieldError{Path: field, Reason: err.Error()}
	}
	if fe.Path == "" {
		return &FieldError{Path: field, Reason: fe.Reason}
	}
	if fe.Path[0] == '[' {
		return &FieldError{Path: field + fe.Path, Reason: fe.Reason}
	}
	return &FieldError{Path: field + "." + fe.Path, Reason: fe.Reason}
}

// AtIndex is [At] for an element of a list.
func AtIndex(err error, field string, i int) error {
	if err == nil {
		return nil
	}
	return At(err, fmt.Sprintf("%s[%d]", field, i))
}

// AtKey is [At] for an element of a map.
func AtKey(err error, field, key string) error {
	if err == nil {
		return nil
	}
	return At(err, fmt.Sprintf("%s[%q]", field, key))
}

// Unpack decodes an Any into the message type that it names.
func Unpack(a *anypb.Any) (proto.Message, error) {
	m, err := a.UnmarshalNew()
	if err != nil {
		return nil, Errorf("", "type %s is not supported", strings.TrimPrefix(a.GetTypeUrl(), "type.googleapis.com/"))
	}
	return m, nil
}

// Check returns an error about the first field of m, at any depth, that is set and not supported.
func Check(m proto.Message) error { return check(m.ProtoReflect()) }

func check(m protoreflect.Message) error {
	desc := m.Descriptor()
	switch desc.FullName() {
	case "google.protobuf.Any":
		a, ok := m.Interface().(*anypb.Any)
		if !ok {
			return Errorf("", "is not an Any")
		}
		inner, err := Unpack(a)
		if err != nil {
			return err
		}
		return check(inner.ProtoReflect())
	}
	if strings.HasPrefix(string(desc.FullName()), "google.protobuf.") {
		return nil
	}
	if len(m.GetUnknown()) > 0 {
		return Errorf("", "%s has a field that this version does not know", desc.FullName())
	}
	fields, known := supported(desc.FullName())
	if !known {
		return Errorf("", "%s is not supported", desc.FullName())
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		err = checkField(fields, fd, v)
		return err == nil
	})
	return err
}

// checkField looks the field up: "name" is supported and looked into, "name!" is taken as it is.
func checkField(fields string, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	name := string(fd.Name())
	opaque, found := lookup(fields, name)
	switch {
	case !found:
		return Errorf(name, "is not supported")
	case opaque:
		return nil
	case fd.IsMap():
		if fd.MapValue().Message() == nil {
			return nil
		}
		var err error
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			err = AtKey(check(v.Message()), name, k.String())
			return err == nil
		})
		return err
	case fd.Message() == nil:
		return nil
	case fd.IsList():
		for i := range v.List().Len() {
			if err := check(v.List().Get(i).Message()); err != nil {
				return AtIndex(err, name, i)
			}
		}
		return nil
	}
	return At(check(v.Message()), name)
}

func lookup(fields, name string) (opaque, found bool) {
	for rest := fields; rest != ""; {
		var f string
		f, rest, _ = strings.Cut(rest, " ")
		if f == name {
			return false, true
		}
		if len(f) == len(name)+1 && f[len(name)] == '!' && f[:len(name)] == name {
			return true, true
		}
	}
	return false, false
}
