package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// Each header is written as the specification has it, and read again to the byte, however it arrives.
func TestHeaders(t *testing.T) {
	for _, test := range []struct {
		name   string
		header Header
		v      Version
		wire   string
	}{
		{"v1, IPv4", Header{addr("192.0.2.1:1234"), addr("10.0.0.1:80")}, V1, "PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n"},
		{"v1, IPv6", Header{addr("[2001:db8::1]:1234"), addr("[2001:db8::2]:443")}, V1, "PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n"},
		{"v1, own", Header{}, V1, "PROXY UNKNOWN\r\n"},
		{"v2, IPv4", Header{addr("192.0.2.1:258"), addr("10.0.0.1:80")}, V2, signature + "\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x00\x50"},
		{
			"v2, IPv6", Header{addr("[2001:db8::1]:258"), addr("[2001:db8::2]:80")}, V2, signature + "\x21\x21\x00\x24" +
				"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x01\x02\x00\x50",
		},
		{"v2, own", Header{}, V2, signature + "\x20\x00\x00\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := string(test.header.Append(nil, test.v)); got != test.wire {
				t.Errorf("written %q", got)
			}
			for _, slow := range []bool{false, true} {
				var r io.Reader = strings.NewReader(test.wire + "GET /")
				if slow {
					r = iotest.OneByteReader(r)
				}
				got, err := Read(r)
				if err != nil || got != test.header {
					t.Errorf("read %+v, %v", got, err)
				}
				if rest, _ := io.ReadAll(r); string(rest) != "GET /" {
					t.Errorf("%q is left", rest)
				}
			}
			for n := range len(test.wire) {
				if _, err := Read(strings.NewReader(test.wire[:n])); err == nil {
					t.Errorf("%d bytes are a header", n)
				}
			}
		})
	}
}

func TestFamiliesAreNotMixed(t *testing.T) {
	mixed := Header{addr("192.0.2.1:1"), addr("[2001:db8::2]:2")}
	if got := string(mixed.Append(nil, V1)); got != "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n" {
		t.Errorf("%q", got)
	}
	got, err := Read(bytes.NewReader(mixed.Append(nil, V2)))
	if err != nil || got != mixed {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatIsNoHeader(t *testing.T) {
	for _, wire := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00", "PROXY\r\n\r\n\r\n\r\n\r\n", "PROXYTCP4 1.1.1.1 1.1.1.1 1 1\r\n",
	} {
		if _, err := Read(strings.NewReader(wire)); !errors.Is(err, ErrMissing) {
			t.Errorf("%q: %v", wire, err)
		}
	}
	for _, wire := range []string{
		"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", "PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
		"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", "PROXY " + strings.Repeat("x", 200) + "\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2  \r\n",
		signature + "\x31\x11\x00\x0c" + strings.Repeat("\x01", 12), signature + "\x22\x11\x00\x0c" + strings.Repeat("\x01", 12),
		signature + "\x21\x11\x00\x0b" + strings.Repeat("\x01", 11), signature + "\x21\x21\x00\x0c" + strings.Repeat("\x01", 12),
	} {
		if h, err := Read(strings.NewReader(wire)); err == nil {
			t.Errorf("%q is %+v", wire, h)
		}
	}
}

// What a proxy adds, and what is of no kind that we know, is left aside.
func TestExtensions(t *testing.T) {
	for wire, want := range map[string]Header{
		signature + "\x21\x11\x00\x11\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x00\x50\x03\x00\x02xy": {addr("192.0.2.1:258"), addr("10.0.0.1:80")},
		signature + "\x21\x12\x00\x0c" + strings.Repeat("\x01", 12):                                  {}, // UDP
		signature + "\x21\x00\x00\x00":                                                               {},
		signature + "\x20\x11\x00\x0c" + strings.Repeat("\x01", 12):                                  {}, // the proxy's own
		"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n":                              {},
	} {
		r := strings.NewReader(wire + "rest")
		got, err := Read(r)
		if rest, _ := io.ReadAll(r); err != nil || got != want || string(rest) != "rest" {
			t.Errorf("%q: %+v, %v, %q is left", wire, got, err, rest)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, h := range []Header{{}, {addr("192.0.2.1:1234"), addr("10.0.0.1:80")}, {addr("[2001:db8::1]:1234"), addr("[2001:db8::2]:443")}} {
		for _, v := range []Version{V1, V2} {
			f.Add(append(h.Append(nil, v), "GET / HTTP/1.1\r\n"...))
		}
	}
	f.Add([]byte(signature + "\x21\x11\x00\x11\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x00\x50\x03\x00\x02xy"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bytes.NewReader(wire)
		h, err := Read(r)
		if err != nil {
			if h != (Header{}) && h.Source.IsValid() && h.Destination.IsValid() {
				t.Fatalf("%+v in spite of %v", h, err)
			}
			return
		}
		used := len(wire) - r.Len()
		if used < fixed-1 || used > fixed+65535 {
			t.Fatalf("%d bytes were read", used)
		}
		if h.Source.IsValid() != h.Destination.IsValid() {
			t.Fatalf("half a header: %+v", h)
		}
		for _, v := range []Version{V1, V2} {
			again, err := Read(bytes.NewReader(h.Append(nil, v)))
			if err != nil || again != h {
				t.Fatalf("%+v became %+v, %v", h, again, err)
			}
		}
	})
}
