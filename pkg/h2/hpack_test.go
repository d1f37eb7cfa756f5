package h2

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// TestStaticTable: each index means what it means to another implementation.
func TestStaticTable(t *testing.T) {
	for i := range staticLen + 2 {
		block := []byte{0x80 | byte(i)}
		want, wantErr := hpack.NewDecoder(4096, nil).DecodeFull(block)
		d := newDecompressor(1 << 16)
		err := d.decode(block)
		if (err == nil) != (wantErr == nil) || err == nil && (d.fields[0].name != want[0].Name || d.fields[0].value != want[0].Value) {
			t.Errorf("%d: %+v (%v), want %+v (%v)", i, d.fields, err, want, wantErr)
		}
	}
}

// TestCompressedBlocks: many blocks of one connection, with tables that fill and shrink.
func TestCompressedBlocks(t *testing.T) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	d := newDecompressor(1 << 16)
	for i := range 2000 {
		out.Reset()
		if i%100 == 99 {
			enc.SetMaxDynamicTableSize(uint32(i * 3 % 4096))
		}
		want := []string{":method=GET", fmt.Sprintf(":path=/%d", i%70)}
		_ = enc.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
		_ = enc.WriteField(hpack.HeaderField{Name: ":path", Value: want[1][6:]})
		for k := range i % 9 {
			f := hpack.HeaderField{Name: fmt.Sprint("x-", k), Value: strings.Repeat(string(rune('a'+i%26)), i%300), Sensitive: k == 3}
			_ = enc.WriteField(f)
			want = append(want, f.Name+"="+f.Value)
		}
		if err := d.decode(out.Bytes()); err != nil {
			t.Fatal(i, err)
		}
		var got []string
		for _, f := range d.fields {
			got = append(got, f.name+"="+f.value)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d: got %q, want %q", i, got, want)
		}
	}
}

// TestLongLists: a list over the limit is reported, and the table is as if it were not.
func TestLongLists(t *testing.T) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	d := NewHeaderDecoder(500)
	_ = enc.WriteField(hpack.HeaderField{Name: "a", Value: strings.Repeat("b", 600)})
	_ = enc.WriteField(hpack.HeaderField{Name: "c", Value: "d"})
	if _, err := d.Decode(1, out.Bytes()); err == nil || !strings.Contains(err.Error(), ErrHeaderListTooLarge) {
		t.Error(err)
	}
	out.Reset()
	_ = enc.WriteField(hpack.HeaderField{Name: "c", Value: "d"})
	if out.Len() != 1 {
		t.Fatal("not indexed")
	}
	if got, err := d.Decode(3, out.Bytes()); err != nil || len(got) != 1 || got[0] != (HeaderField{"c", "d"}) {
		t.Error(got, err)
	}
}

// FuzzDecompress: what we take, another implementation takes for the same, block after block. We refuse more: integers beyond any
// block's size, and table sizes in the middle.
func FuzzDecompress(f *testing.F) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	for _, kv := range []string{":method GET", "user-agent curl/8", "x-foo bar", "x-foo bar", ":path /index.html"} {
		k, v, _ := strings.Cut(kv, " ")
		_ = enc.WriteField(hpack.HeaderField{Name: k, Value: v})
	}
	f.Add(out.Bytes(), out.Bytes()[:3])
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x82, 0x40, 1, 'a', 1, 'b'}, []byte{0xbe, 0x20, 0x82})
	f.Add([]byte{0x0f, 0x2f, 0x83, 0xff, 0xff, 0xff}, []byte{0x00, 0x81, 0x1f, 0x01, 'a'})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := newDecompressor(1 << 20)
		var want []hpack.HeaderField
		oracle := hpack.NewDecoder(4096, func(f hpack.HeaderField) { want = append(want, f) })
		for _, block := range [][]byte{a, b, a} {
			if d.decode(block) != nil {
				return
			}
			want = want[:0]
			if _, err := oracle.Write(block); err != nil {
				if strings.Contains(err.Error(), "dynamic table size update") {
					return // it takes only one
				}
				t.Fatalf("%x is refused: %v", block, err)
			}
			if err := oracle.Close(); err != nil {
				t.Fatalf("%x is refused: %v", block, err)
			}
			if len(want) != len(d.fields) {
				t.Fatalf("%x: %+v is not %+v", block, d.fields, want)
			}
			for i, f := range d.fields {
				if f.name != want[i].Name || f.value != want[i].Value {
					t.Fatalf("%x: %q %q is not %+v", block, f.name, f.value, want[i])
				}
			}
		}
	})
}

// Between blocks a decoder needs no memory but its table's, and the strings of the blocks before are still what they were.
func TestDecoderRests(t *testing.T) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	d := NewHeaderDecoder(1 << 16)
	var kept []string
	for i := range 50 {
		out.Reset()
		_ = enc.WriteField(hpack.HeaderField{Name: "x-same", Value: "in the table"})
		_ = enc.WriteField(hpack.HeaderField{Name: "x-n", Value: fmt.Sprint("number ", i), Sensitive: true})
		fields, err := d.Decode(1, out.Bytes())
		if err != nil || len(fields) != 2 || fields[0] != (HeaderField{"x-same", "in the table"}) {
			t.Fatal(i, fields, err)
		}
		kept = append(kept, fields[1].Value)
		d.Rest()
		if d.dec.blockMemory != nil {
			t.Fatal("it keeps memory")
		}
		d.Rest() // of no effect
	}
	for i, value := range kept {
		if value != fmt.Sprint("number ", i) {
			t.Errorf("%d: %q", i, value)
		}
	}
}
