package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// difference is a field in which two resources of one name differ. A resource that only one side has differs in the path "".
type difference struct{ Resource, Path, Ours, Theirs string }

const absent = "(absent)"

func (d difference) String() string {
	return fmt.Sprintf("%s %s: ours %s, theirs %s", d.Resource, cmp.Or(d.Path, "(the resource)"), d.Ours, d.Theirs)
}

// compare returns all differences between two sets of resources, by name.
func compare(ours, theirs map[string]proto.Message) []difference {
	names := slices.Collect(maps.Keys(ours))
	for name := range theirs {
		if _, both := ours[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []difference
	for _, name := range names {
		a, b := ours[name], theirs[name]
		switch {
		case a == nil:
			out = append(out, difference{Resource: name, Ours: absent, Theirs: text(b.ProtoReflect())})
		case b == nil:
			out = append(out, difference{Resource: name, Ours: text(a.ProtoReflect()), Theirs: absent})
		default:
			for _, d := range differ("", a.ProtoReflect(), b.ProtoReflect()) {
				d.Resource = name
				out = append(out, d)
			}
		}
	}
	return out
}

// differ compares two messages of one type, field by field.
func differ(path string, ours, theirs protoreflect.Message) []difference {
	var out []difference
	fields := ours.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		at := strings.TrimPrefix(path+"."+string(f.Name()), ".")
		a, b := ours.Get(f), theirs.Get(f)
		switch {
		case f.IsMap():
			out = append(out, differMaps(at, f, a.Map(), b.Map())...)
		case f.IsList():
			out = append(out, differLists(at, f, a.List(), b.List())...)
		case ours.Has(f) != theirs.Has(f):
			out = append(out, difference{Path: at, Ours: fieldText(ours, f), Theirs: fieldText(theirs, f)})
		case f.Message() != nil && ours.Has(f):
			out = append(out, differ(at, a.Message(), b.Message())...)
		case fieldText(ours, f) != fieldText(theirs, f):
			out = append(out, difference{Path: at, Ours: fieldText(ours, f), Theirs: fieldText(theirs, f)})
		}
	}
	return out
}

func differMaps(path string, f protoreflect.FieldDescriptor, ours, theirs protoreflect.Map) []difference {
	var out []difference
	keys := map[string]protoreflect.MapKey{}
	for _, m := range []protoreflect.Map{ours, theirs} {
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool { keys[k.String()] = k; return true })
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		k, at := keys[name], path+"["+name+"]"
		a, b := absent, absent
		if ours.Has(k) {
			a = valueText(f.MapValue(), ours.Get(k))
		}
		if theirs.Has(k) {
			b = valueText(f.MapValue(), theirs.Get(k))
		}
		switch {
		case a == b:
		case f.MapValue().Message() != nil && ours.Has(k) && theirs.Has(k):
			out = append(out, differ(at, ours.Get(k).Message(), theirs.Get(k).Message())...)
		default:
			out = append(out, difference{Path: at, Ours: a, Theirs: b})
		}
	}
	return out
}

// ordered reports whether the order of a repeated field means something.
func ordered(f protoreflect.FieldDescriptor) bool {
	return f.FullName() == "istio.workload.LoadBalancing.routing_preference"
}

// differLists compares lists as sets, unless their order matters.
func differLists(path string, f protoreflect.FieldDescriptor, ours, theirs protoreflect.List) []difference {
	if ordered(f) {
		if a, b := listText(f, ours), listText(f, theirs); a != b {
			return []difference{{Path: path, Ours: a, Theirs: b}}
		}
		return nil
	}
	a, b := elements(f, ours), elements(f, theirs)
	a, b = without(a, b), without(b, a)
	var out []difference
	// What is left and stands for the same is told field by field.
	for _, x := range a {
		i := slices.IndexFunc(b, func(y element) bool { return x.key == y.key && x.message != nil })
		if i < 0 {
			out = append(out, difference{Path: path + "[]", Ours: x.text, Theirs: absent})
			continue
		}
		out = append(out, differ(path+"["+x.key+"]", x.message, b[i].message)...)
		b = slices.Delete(b, i, i+1)
	}
	for _, y := range b {
		out = append(out, difference{Path: path + "[]", Ours: absent, Theirs: y.text})
	}
	return out
}

// element of a list. The key says which element of another list stands for the same.
type element struct {
	key, text string
	message   protoreflect.Message // nil for scalars
}

func elements(f protoreflect.FieldDescriptor, l protoreflect.List) []element {
	out := make([]element, l.Len())
	for i := range out {
		out[i].text = valueText(f, l.Get(i))
		if f.Message() == nil {
			continue
		}
		out[i].message = l.Get(i).Message()
		if port := f.Message().Fields().ByName("service_port"); port != nil {
			out[i].key = out[i].message.Get(port).String()
		}
	}
	slices.SortFunc(out, func(a, b element) int { return cmp.Compare(a.text, b.text) })
	return out
}

// without returns the elements of a that b has not; one that is there twice has to be there twice.
func without(a, b []element) []element {
	count := map[string]int{}
	for _, e := range b {
		count[e.text]++
	}
	var out []element
	for _, e := range a {
		if count[e.text]--; count[e.text] < 0 {
			out = append(out, e)
		}
	}
	return out
}

// text of a message. It is the same for messages that mean the same, and has addresses in the form that people write.
func text(m protoreflect.Message) string {
	var fields []string
	descriptors := m.Descriptor().Fields()
	for i := range descriptors.Len() {
		if f := descriptors.Get(i); m.Has(f) {
			fields = append(fields, string(f.Name())+": "+fieldText(m, f))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func fieldText(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		var entries []string
		m.Get(f).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			entries = append(entries, k.String()+": "+valueText(f.MapValue(), v))
			return true
		})
		slices.Sort(entries)
		return "{" + strings.Join(entries, ", ") + "}"
	case f.IsList():
		return listText(f, m.Get(f).List())
	case f.HasPresence() && !m.Has(f):
		return absent
	}
	return valueText(f, m.Get(f))
}

func listText(f protoreflect.FieldDescriptor, l protoreflect.List) string {
	texts := make([]string, l.Len())
	for i := range texts {
		texts[i] = valueText(f, l.Get(i))
	}
	if !ordered(f) {
		slices.Sort(texts)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func valueText(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return text(v.Message())
	case protoreflect.BytesKind:
		if ip, ok := netip.AddrFromSlice(v.Bytes()); ok {
			return ip.String()
		}
		return fmt.Sprintf("%x", v.Bytes())
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return string(e.Name())
		}
	case protoreflect.StringKind:
		return fmt.Sprintf("%q", v.String())
	}
	return v.String()
}
