package h2

import (
	"errors"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// tableSize is what we announce for the dynamic table: nothing, so the default holds.
const tableSize = 4096

// Errors in a header block; the connection ends with COMPRESSION_ERROR.
var (
	errTruncated  = errors.New("truncated header block")
	errInteger    = errors.New("integer too large")
	errIndex      = errors.New("index out of the tables")
	errSizeUpdate = errors.New("table size update out of place or too large")
)

// decompressor undoes HPACK (RFC 7541) for one direction of a connection. The literals of a block share one string.
type decompressor struct {
	table dynamicTable
	limit int // of the list; beyond it fields are only decoded for the table's sake

	*blockMemory // nil between blocks, if it was put back
	size         int
}

// blockMemory is what decoding a block needs.
type blockMemory struct {
	fields []rawField
	arena  []byte
	list   []HeaderField // of a HeaderDecoder
}

// blocks are free memory. It is for connections that are many and mostly idle.
var blocks sync.Pool //nolint:gochecknoglobals // free memory is global by nature

// take gets memory for a block.
func (d *decompressor) take() {
	if d.blockMemory != nil {
		return
	}
	if m, ok := blocks.Get().(*blockMemory); ok {
		d.blockMemory = m
	} else {
		d.blockMemory = &blockMemory{}
	}
}

// put gives the memory of the last block back.
func (d *decompressor) put() {
	if m := d.blockMemory; m != nil {
		clear(m.fields)
		clear(m.list)
		d.blockMemory = nil
		blocks.Put(m)
	}
}

// rawField is a field of the block under way. Parts that are not in a table are still in the arena.
type rawField struct {
	name, value       string
	nameAt, valueAt   span
	nameRaw, valueRaw bool
}

type span struct{ from, to int }

func newDecompressor(limit int) decompressor {
	return decompressor{table: dynamicTable{max: tableSize}, limit: limit}
}

// decode reads a block into d.fields.
func (d *decompressor) decode(block []byte) error {
	d.take()
	if cap(d.fields) > 256 {
		d.fields = nil
	}
	if cap(d.arena) > 16<<10 {
		d.arena = nil
	}
	clear(d.fields)
	d.fields, d.arena, d.size = d.fields[:0], d.arena[:0], 0
	for updates := 0; len(block) > 0; {
		var err error
		switch b := block[0]; {
		case b&0x80 != 0:
			block, err = d.indexed(block)
		case b&0x40 != 0:
			block, err = d.literal(block, 0x3f, true)
		case b&0x20 != 0:
			// At the beginning, and as often as section 4.2 can ask for.
			if updates++; updates > 2 {
				return errSizeUpdate
			}
			if block, err = d.resize(block); err != nil {
				return err
			}
			continue
		default:
			block, err = d.literal(block, 0x0f, false)
		}
		if err != nil {
			return err
		}
		updates = 2
	}
	d.finish()
	return nil
}

// finish gives the fields their strings.
func (d *decompressor) finish() {
	all := string(d.arena)
	for i := range d.fields {
		f := &d.fields[i]
		if f.nameRaw {
			f.name = all[f.nameAt.from:f.nameAt.to]
		}
		if f.valueRaw {
			f.value = all[f.valueAt.from:f.valueAt.to]
		}
	}
}

func (d *decompressor) keep(f rawField, name, value int) {
	if d.size += name + value + 32; d.size <= d.limit {
		d.fields = append(d.fields, f)
	}
}

func (d *decompressor) indexed(block []byte) ([]byte, error) {
	i, block, err := readInt(block, 0x7f)
	if err != nil {
		return nil, err
	}
	var f rawField
	if f.name, f.value, err = d.entry(i); err != nil {
		return nil, err
	}
	d.keep(f, len(f.name), len(f.value))
	return block, nil
}

// entry finds an entry of either table.
func (d *decompressor) entry(i int) (name, value string, err error) {
	if i > 0 && i <= staticLen {
		name, value = staticEntry(i)
		return name, value, nil
	}
	e, ok := d.table.at(i - staticLen)
	if i <= 0 || !ok {
		return "", "", errIndex
	}
	return e.Name, e.Value, nil
}

func (d *decompressor) literal(block []byte, mask byte, index bool) ([]byte, error) {
	before := len(d.arena)
	i, block, err := readInt(block, mask)
	if err != nil {
		return nil, err
	}
	var f rawField
	if i > 0 {
		f.name, _, err = d.entry(i)
	} else {
		f.nameRaw = true
		f.nameAt, block, err = d.text(block)
	}
	if err != nil {
		return nil, err
	}
	f.valueRaw = true
	if f.valueAt, block, err = d.text(block); err != nil {
		return nil, err
	}
	name, value := len(f.name)+f.nameAt.to-f.nameAt.from, f.valueAt.to-f.valueAt.from
	if index {
		// The table outlives the block: the entry gets a string of its own.
		own := string(d.arena[before:])
		if f.nameRaw {
			f.name, f.nameRaw = own[:name], false
			own = own[name:]
		}
		f.value, f.valueRaw = own, false
		d.table.add(HeaderField{f.name, f.value})
		d.arena = d.arena[:before]
	}
	d.keep(f, name, value)
	if d.size > d.limit {
		d.arena = d.arena[:before]
	}
	return block, nil
}

// text reads a string literal into the arena.
func (d *decompressor) text(block []byte) (at span, rest []byte, err error) {
	if len(block) == 0 {
		return at, nil, errTruncated
	}
	huffman := block[0]&0x80 != 0
	n, block, err := readInt(block, 0x7f)
	if err != nil {
		return at, nil, err
	}
	if n > len(block) {
		return at, nil, errTruncated
	}
	at.from = len(d.arena)
	if huffman {
		_, err = hpack.HuffmanDecode((*arena)(&d.arena), block[:n])
	} else {
		d.arena = append(d.arena, block[:n]...)
	}
	at.to = len(d.arena)
	return at, block[n:], err
}

// arena is an io.Writer.
type arena []byte

func (a *arena) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

func (d *decompressor) resize(block []byte) ([]byte, error) {
	n, block, err := readInt(block, 0x1f)
	if err == nil && n > tableSize {
		err = errSizeUpdate
	}
	if err != nil {
		return nil, err
	}
	d.table.max = n
	d.table.evict()
	return block, nil
}

// readInt reads an integer whose prefix is what mask covers.
func readInt(b []byte, mask byte) (n int, rest []byte, err error) {
	n = int(b[0] & mask)
	b = b[1:]
	if n < int(mask) {
		return n, b, nil
	}
	for shift := 0; ; shift += 7 {
		switch {
		case len(b) == 0:
			return 0, nil, errTruncated
		case shift > 21:
			return 0, nil, errInteger
		}
		c := b[0]
		b = b[1:]
		n += int(c&0x7f) << shift
		if c < 0x80 {
			return n, b, nil
		}
	}
}

// dynamicTable is first in, first out; its entries are counted from the latest.
type dynamicTable struct {
	entries []HeaderField // entries[first:], oldest first
	first   int
	size    int
	max     int
}

func entrySize(f HeaderField) int { return len(f.Name) + len(f.Value) + 32 }

func (t *dynamicTable) at(i int) (HeaderField, bool) {
	if i < 1 || i > len(t.entries)-t.first {
		return HeaderField{}, false
	}
	return t.entries[len(t.entries)-i], true
}

func (t *dynamicTable) add(f HeaderField) {
	t.entries = append(t.entries, f)
	t.size += entrySize(f)
	t.evict()
}

func (t *dynamicTable) evict() {
	for t.size > t.max {
		t.size -= entrySize(t.entries[t.first])
		t.entries[t.first] = HeaderField{}
		t.first++
	}
	if t.first > 16 && t.first > len(t.entries)/2 {
		n := copy(t.entries, t.entries[t.first:])
		clear(t.entries[n:])
		t.entries, t.first = t.entries[:n], 0
	}
}
