package httpmsg

import (
	"iter"
	"slices"
	"strings"
)

// Field is one header field. Keys are lower case.
type Field struct{ Key, Value string }

// Header is the fields of a message in the order in which they came. Its zero value is empty and usable. A codec may let keys and
// values alias a buffer that it reuses: they are valid until the exchange ends; whoever keeps one longer clones it.
type Header struct{ fields []Field }

// Add appends a field. key must be lower case.
func (h *Header) Add(key, value string) { h.fields = append(h.fields, Field{key, value}) }

// Grow makes room for n more fields.
func (h *Header) Grow(n int) { h.fields = slices.Grow(h.fields, n) }

// Set replaces all fields of the key by one, in the place of the first.
func (h *Header) Set(key, value string) {
	for i := range h.fields {
		if h.fields[i].Key == key {
			h.fields[i].Value = value
			h.delFrom(i+1, key)
			return
		}
	}
	h.Add(key, value)
}

// Get returns the value of the first field of the key.
func (h *Header) Get(key string) (value string, ok bool) {
	for i := range h.fields {
		if h.fields[i].Key == key {
			return h.fields[i].Value, true
		}
	}
	return "", false
}

// Value is [Header.Get] with "" for what is missing.
func (h *Header) Value(key string) string {
	v, _ := h.Get(key)
	return v
}

// Joined returns all values of the key joined by a comma, as a list field is read.
func (h *Header) Joined(key string) (value string, ok bool) {
	var more []string
	for i := range h.fields {
		if h.fields[i].Key != key {
			continue
		}
		if !ok {
			value, ok = h.fields[i].Value, true
			continue
		}
		if more == nil {
			more = append(more, value)
		}
		more = append(more, h.fields[i].Value)
	}
	if more != nil {
		return strings.Join(more, ","), true
	}
	return value, ok
}

// Del removes all fields of the key.
func (h *Header) Del(key string) { h.delFrom(0, key) }

func (h *Header) delFrom(from int, key string) {
	kept := h.fields[:from]
	for _, f := range h.fields[from:] {
		if f.Key != key {
			kept = append(kept, f)
		}
	}
	clear(h.fields[len(kept):])
	h.fields = kept
}

// All yields the fields in order. The header must not change meanwhile.
func (h *Header) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range h.fields {
			if !yield(h.fields[i].Key, h.fields[i].Value) {
				return
			}
		}
	}
}

// Fields returns the fields themselves, valid until the header changes.
func (h *Header) Fields() []Field { return h.fields }

// Len is how many fields there are.
func (h *Header) Len() int { return len(h.fields) }

// Reset empties the header and keeps its memory.
func (h *Header) Reset() {
	clear(h.fields)
	h.fields = h.fields[:0]
}

// CopyFrom makes h equal to o, without sharing the slice; keys and values stay shared.
func (h *Header) CopyFrom(o *Header) { h.fields = append(h.fields[:0], o.fields...) }
