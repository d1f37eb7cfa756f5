package delta

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// Batch is the content of one response: immutable, and shared by all streams that are to get the same.
type Batch struct {
	Entries []*Entry
	Removed []string // resource names, or requested keys that match nothing
	Aliases bool     // whether aliases are written

	once sync.Once
	wire []byte

	split sync.Once
	added *Batch

	stateOnce sync.Once
	state     []byte
}

// Empty reports whether there is nothing in it.
func (b *Batch) Empty() bool { return len(b.Entries) == 0 && len(b.Removed) == 0 }

// Wire returns the serialized DeltaDiscoveryResponse without its nonce, which may be appended (AppendNonce) because the
// order of protobuf fields is free. It is computed once. typeURL must be the same on every call.
func (b *Batch) Wire(typeURL, serverVersion string) []byte {
	b.once.Do(func() {
		size := len(typeURL) + len(serverVersion) + 16
		for _, e := range b.Entries {
			whole, _ := e.sizes(b.Aliases)
			size += bytesSize(responseResource, whole)
		}
		for _, r := range b.Removed {
			size += bytesSize(responseRemoved, len(r))
		}
		w := make([]byte, 0, size)
		w = appendString(w, responseVersion, serverVersion)
		for _, e := range b.Entries {
			w = e.appendWire(w, b.Aliases)
		}
		w = appendString(w, responseTypeURL, typeURL)
		for _, r := range b.Removed {
			w = protowire.AppendString(protowire.AppendTag(w, responseRemoved, protowire.BytesType), r)
		}
		b.wire = w
	})
	return b.wire
}

// additions is the batch without its removals, the same for all who ask.
func (b *Batch) additions() *Batch {
	b.split.Do(func() { b.added = &Batch{Entries: b.Entries, Aliases: b.Aliases} })
	return b.added
}

// StateWire returns a serialized state-of-the-world DiscoveryResponse with the contents of the entries, without version and
// nonce, which may be appended (AppendState). It is computed once. typeURL must be the same on every call.
func (b *Batch) StateWire(typeURL string) []byte {
	b.stateOnce.Do(func() {
		size := len(typeURL) + 8
		for _, e := range b.Entries {
			_, content := e.sizes(false)
			size += bytesSize(stateResource, content)
		}
		w := make([]byte, 0, size)
		for _, e := range b.Entries {
			_, content := e.sizes(false)
			w = protowire.AppendTag(w, stateResource, protowire.BytesType)
			w = protowire.AppendVarint(w, uint64(content))
			w = e.appendContent(w)
		}
		b.state = appendString(w, stateTypeURL, typeURL)
	})
	return b.state
}

// AppendState appends the fields by which state-of-the-world responses to several streams differ.
func AppendState(b []byte, version, nonce string) []byte {
	return appendString(appendString(b, stateVersion, version), stateNonce, nonce)
}

// AppendNonce appends the one field by which the responses to several streams differ.
func AppendNonce(b []byte, nonce string) []byte { return appendString(b, responseNonce, nonce) }

// batchBuilder collects a batch for one stream, each name once.
type batchBuilder struct {
	aliases bool
	entries map[string]*Entry
	removed map[string]struct{}
}

func newBatchBuilder(aliases bool) *batchBuilder {
	return &batchBuilder{aliases: aliases, entries: map[string]*Entry{}, removed: map[string]struct{}{}}
}

func (b *batchBuilder) add(e *Entry)       { b.entries[e.Name] = e }
func (b *batchBuilder) remove(name string) { b.removed[name] = struct{}{} }
func (b *batchBuilder) empty() bool        { return len(b.entries) == 0 && len(b.removed) == 0 }

func (b *batchBuilder) finish() *Batch {
	out := &Batch{Aliases: b.aliases, Removed: slices.Sorted(maps.Keys(b.removed))}
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		out.Entries = append(out.Entries, b.entries[name])
	}
	return out
}
