package delta

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// Wildcard is the name that stands for every resource of a type.
const Wildcard = "*"

// Resource is one named xDS resource. It is immutable once it is handed to this package.
type Resource struct {
	Name string
	// Version is what a reconnecting client is compared by; equal versions are not sent again. A resource without one is
	// always sent again.
	Version string
	// Any is the content, marshalled once by whoever made it.
	Any *anypb.Any
	// Aliases are other keys it can be asked for by, on demand, such as "network/ip". They are on the wire only for clients in
	// on-demand mode.
	Aliases []string
	// Groups are the names of resources that bring this one along: who asks on demand for a service gets the workloads that
	// name it here, now and later. They are never on the wire.
	Groups []string
}

// Field numbers of envoy.service.discovery.v3.Resource and of DeltaDiscoveryResponse.
const (
	resourceVersion  = 1
	resourceContent  = 2
	resourceName     = 3
	resourceAliases  = 4
	anyTypeURL       = 1
	anyValue         = 2
	responseVersion  = 1
	responseResource = 2
	responseTypeURL  = 4
	responseNonce    = 5
	responseRemoved  = 6
)

// Field numbers of DiscoveryResponse.
const (
	stateVersion  = 1
	stateResource = 2
	stateTypeURL  = 4
	stateNonce    = 5
)

// Entry is a resource in a Table. It is immutable.
type Entry struct {
	Name, Version   string
	typeURL         string
	content         []byte // of the Any
	aliases, groups []string
}

func newEntry(r Resource) *Entry {
	return &Entry{Name: r.Name, Version: r.Version, typeURL: r.Any.GetTypeUrl(), content: r.Any.GetValue(), aliases: r.Aliases, groups: r.Groups}
}

// sizes returns the lengths of the entry and of its Any on the wire, without their own headers.
func (e *Entry) sizes(aliases bool) (whole, content int) {
	content = stringSize(anyTypeURL, e.typeURL) + bytesSize(anyValue, len(e.content))
	whole = stringSize(resourceVersion, e.Version) + bytesSize(resourceContent, content) + stringSize(resourceName, e.Name)
	if aliases {
		for _, a := range e.aliases {
			whole += bytesSize(resourceAliases, len(a))
		}
	}
	return whole, content
}

// appendWire appends the entry as a field of a DeltaDiscoveryResponse. The content is copied as it is, not marshalled.
func (e *Entry) appendWire(b []byte, aliases bool) []byte {
	whole, content := e.sizes(aliases)
	b = protowire.AppendTag(b, responseResource, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(whole))
	b = appendString(b, resourceVersion, e.Version)
	b = protowire.AppendTag(b, resourceContent, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(content))
	b = e.appendContent(b)
	b = appendString(b, resourceName, e.Name)
	if aliases {
		for _, a := range e.aliases {
			b = protowire.AppendTag(b, resourceAliases, protowire.BytesType)
			b = protowire.AppendString(b, a)
		}
	}
	return b
}

// appendContent appends the fields of the entry's Any.
func (e *Entry) appendContent(b []byte) []byte {
	b = appendString(b, anyTypeURL, e.typeURL)
	b = protowire.AppendTag(b, anyValue, protowire.BytesType)
	return protowire.AppendBytes(b, e.content)
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func stringSize(field protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return bytesSize(field, len(s))
}

func bytesSize(field protowire.Number, n int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

// secondary yields the keys, besides its name, that lead to the entry.
func (e *Entry) secondary(yield func(string) bool) {
	for _, a := range e.aliases {
		if !yield(a) {
			return
		}
	}
	for _, g := range e.groups {
		if !yield(g) {
			return
		}
	}
}
