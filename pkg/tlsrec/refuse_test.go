package tlsrec

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

var suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

// hand is a peer that makes any records, under keys that it shares with a Conn.
type hand struct {
	nc      net.Conn
	in, out *keys
}

// handed returns a Conn and a hand at its other end.
func handed(t testing.TB, id uint16, client bool) (*Conn, *hand) {
	t.Helper()
	a, b := tcp.Pair(t)
	s := suiteOf(id)
	pair := func() (*keys, *keys) {
		secret := make([]byte, s.hashLen())
		rand.Read(secret)
		one, err := newKeys(s, secret, 0)
		if err != nil {
			t.Fatal(err)
		}
		two, err := newKeys(s, clone(secret), 0)
		if err != nil {
			t.Fatal(err)
		}
		return one, two
	}
	h := &hand{nc: b}
	var in, out *keys
	in, h.out = pair()
	out, h.in = pair()
	b.SetDeadline(time.Now().Add(30 * time.Second))
	return newConn(a, client, tls.ConnectionState{CipherSuite: id, Version: tls.VersionTLS13}, in, out), h
}

// record seals a record.
func (h *hand) record(typ recordType, content string) []byte {
	return h.out.seal(nil, typ, []byte(content), false)
}

// alert reads up to an alert and returns it.
func (h *hand) alert() (Alert, error) {
	for {
		var head [headLen]byte
		if _, err := io.ReadFull(h.nc, head[:]); err != nil {
			return 0, err
		}
		record := append(head[:], make([]byte, recordLen(head[:]))...)
		if _, err := io.ReadFull(h.nc, record[headLen:]); err != nil {
			return 0, err
		}
		typ, p, bad := h.in.open(record)
		if bad != 0 {
			return 0, errors.New(bad.String())
		}
		if typ == typeAlert {
			return Alert(p[1]), nil
		}
	}
}

const (
	ticket       = "\x04\x00\x00\x03abc"
	update       = "\x18\x00\x00\x01\x00"
	updateAnswer = "\x18\x00\x00\x01\x01"
)

// What a peer may not send ends the connection with the alert that the RFC names.
func TestRefusals(t *testing.T) {
	r := func(typ recordType, contents ...string) func(*hand) []byte {
		return func(h *hand) (out []byte) {
			for _, content := range contents {
				out = append(out, h.record(typ, content)...)
			}
			return out
		}
	}
	join := func(parts ...func(*hand) []byte) func(*hand) []byte {
		return func(h *hand) (out []byte) {
			for _, part := range parts {
				out = append(out, part(h)...)
			}
			return out
		}
	}
	plain := func(s string) func(*hand) []byte { return func(*hand) []byte { return []byte(s) } }
	data, shake, alert := typeApplicationData, typeHandshake, typeAlert
	for _, tt := range []struct {
		name   string
		server bool // the Conn is one
		send   func(*hand) []byte
		want   Alert
	}{
		{"change_cipher_spec", false, plain("\x14\x03\x03\x00\x01\x01"), AlertUnexpectedMessage},
		{"plaintext alert", false, plain("\x15\x03\x03\x00\x02\x01\x00"), AlertUnexpectedMessage},
		{"plaintext handshake", false, plain("\x16\x03\x03\x00\x04\x00\x00\x00\x00"), AlertUnexpectedMessage},
		{"garbage", false, plain("GET / HTTP/1.1\r\n\r\n"), AlertUnexpectedMessage},
		{"oversized head", false, plain("\x17\x03\x03\x41\x01"), AlertRecordOverflow},
		{"huge head", false, plain("\x17\x03\x03\xff\xff"), AlertRecordOverflow},
		{"too short", false, plain("\x17\x03\x03\x00\x10" + strings.Repeat("a", 16)), AlertBadRecordMAC},
		{"empty", false, plain("\x17\x03\x03\x00\x00"), AlertBadRecordMAC},
		{"forged", false, plain("\x17\x03\x03\x00\x20" + strings.Repeat("a", 32)), AlertBadRecordMAC},
		{"tampered", false, func(h *hand) []byte { b := h.record(data, "hello"); b[7]++; return b }, AlertBadRecordMAC},
		{"tampered head", false, func(h *hand) []byte { b := h.record(data, "hello"); b[2]++; return b }, AlertBadRecordMAC},
		{"replayed", false, func(h *hand) []byte { b := h.record(data, "hello"); return append(b, b...) }, AlertBadRecordMAC},
		{"lost", false, func(h *hand) []byte { h.record(data, "hello"); return h.record(data, "hello") }, AlertBadRecordMAC},
		{"oversized content", false, r(data, strings.Repeat("a", maxContent+1)), AlertRecordOverflow},
		{"only padding", false, r(0, "\x00\x00\x00"), AlertUnexpectedMessage},
		{"type unknown", false, r(99, "a"), AlertUnexpectedMessage},
		{"change_cipher_spec inside", false, r(typeChangeCipherSpec, "\x01"), AlertUnexpectedMessage},
		{"empty handshake", false, r(shake, ""), AlertUnexpectedMessage},
		{"ticket from a client", true, r(shake, ticket), AlertUnexpectedMessage},
		{"empty ticket", false, r(shake, "\x04\x00\x00\x00"), AlertDecodeError},
		{"huge ticket", false, r(shake, "\x04\xff\x00\x00"), AlertDecodeError},
		{"certificate request", false, r(shake, "\x0d\x00\x00\x00"), AlertUnexpectedMessage},
		{"client hello", true, r(shake, "\x01\x00\x00\x00"), AlertUnexpectedMessage},
		{"finished", false, r(shake, "\x14\x00\x00\x20"), AlertUnexpectedMessage},
		{"update of wrong length", false, r(shake, "\x18\x00\x00\x02\x00\x00"), AlertDecodeError},
		{"update of unknown kind", false, r(shake, "\x18\x00\x00\x01\x02"), AlertIllegalParameter},
		{"message behind an update", false, r(shake, update+ticket), AlertUnexpectedMessage},
		{"data within a message", false, join(r(shake, ticket[:5]), r(data, "hello")), AlertUnexpectedMessage},
		{"alert within a message", false, join(r(shake, update[:2]), r(alert, "\x01\x00")), AlertUnexpectedMessage},
		{"data under old keys", false, func(h *hand) []byte { return append(h.record(shake, update), h.record(data, "x")...) }, AlertBadRecordMAC},
		{"short alert", false, r(alert, "\x01"), AlertDecodeError},
		{"empty alert", false, r(alert, ""), AlertDecodeError},
		{"two alerts in one", false, r(alert, "\x01\x00\x01\x00"), AlertDecodeError},
		{"flood of empty records", false, r(data, make([]string, maxUseless+1)...), AlertUnexpectedMessage},
		{"flood of tickets", false, r(shake, strings.Split(strings.Repeat(ticket+" ", maxUseless)+ticket, " ")...), AlertUnexpectedMessage},
		{"flood of user_canceled", false, r(alert, strings.Split(strings.Repeat("\x01\x5a ", maxUseless)+"\x01\x5a", " ")...), AlertUnexpectedMessage},
		{"flood of updates", false, func(h *hand) (out []byte) {
			for range freeUpdates + 2 {
				out = append(out, h.record(data, "a")...)
				out = append(out, h.record(shake, update)...)
				if err := h.out.update(); err != nil {
					t.Fatal(err)
				}
			}
			return out
		}, AlertUnexpectedMessage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, h := handed(t, suites[len(tt.name)%len(suites)], !tt.server)
			defer c.Close()
			if _, err := h.nc.Write(tt.send(h)); err != nil {
				t.Fatal(err)
			}
			_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
			var refused *AlertError
			if !errors.As(err, &refused) || refused.Alert != tt.want || refused.Remote {
				t.Fatalf("reading ends with %v, want %s", err, tt.want)
			}
			if got, err := h.alert(); err != nil || got != tt.want {
				t.Errorf("the peer is told %s, %v, want %s", got, err, tt.want)
			}
			if _, err := c.Write([]byte("x")); err == nil {
				t.Error("writing goes on")
			}
			if _, again := c.Read(make([]byte, 1)); !errors.Is(again, err) && again.Error() != refused.Error() {
				t.Errorf("reading again: %v", again)
			}
		})
	}
}

// What a peer may send although few do.
func TestOddButAllowed(t *testing.T) {
	for _, id := range suites {
		c, h := handed(t, id, true)
		var sent []byte
		add := func(b []byte) { sent = append(sent, b...) }
		add(h.record(typeHandshake, ticket+ticket))
		add(h.record(typeHandshake, ticket[:1]))
		add(h.record(typeHandshake, ticket[1:6]))
		add(h.record(typeHandshake, ticket[6:]))
		for range maxUseless - 4 {
			add(h.record(typeApplicationData, ""))
		}
		add(h.record(typeApplicationData, strings.Repeat("a", maxContent)))
		for i := range update {
			add(h.record(typeHandshake, update[i:i+1]))
		}
		if err := h.out.update(); err != nil {
			t.Fatal(err)
		}
		// Padding: zeros behind the type.
		inner := append([]byte("padded"), byte(typeApplicationData), 0, 0, 0, 0)
		head := []byte{23, 3, 3, 0, byte(len(inner) + tagLen)}
		add(h.out.aead.Seal(head, h.out.step(), inner, head))
		add(h.record(typeAlert, "\x01\x5a"))
		add(h.record(typeAlert, "\x02\x00")) // close_notify, whatever its level
		add([]byte("what follows is ignored"))
		go func() {
			for _, b := range sent {
				_, _ = h.nc.Write([]byte{b})
			}
			h.nc.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if want := strings.Repeat("a", maxContent) + "padded"; err != nil || string(got) != want {
			t.Errorf("suite %#x: %d bytes, %v, want %d", id, len(got), err, len(want))
		}
		if _, err := c.Write([]byte("half open")); err != nil {
			t.Errorf("suite %#x: write after the peer's end: %v", id, err)
		}
		c.Close()
		if got, err := h.alert(); err != nil || got != AlertCloseNotify {
			t.Errorf("suite %#x: the peer is told %s, %v", id, got, err)
		}
	}
}

func TestPeersAlertAndTruncation(t *testing.T) {
	c, h := handed(t, suites[0], true)
	h.nc.Write(h.record(typeAlert, "\x02\x2c"))
	_, err := c.Read(make([]byte, 1))
	var told *AlertError
	if !errors.As(err, &told) || !told.Remote || told.Alert != 44 || !strings.Contains(err.Error(), "certificate_revoked") {
		t.Errorf("%v", err)
	}
	c.Close()

	c, h = handed(t, suites[0], false)
	whole := h.record(typeApplicationData, "hello")
	h.nc.Write(append(whole, whole[:9]...))
	h.nc.Close()
	if got, err := io.ReadAll(c); string(got) != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v: a connection that is cut is no orderly end", got, err)
	}
	c.Close()
}

// Deadlines end neither direction: what was sealed is sent later, what was received is kept.
func TestDeadlinesLoseNothing(t *testing.T) {
	a, b := ours(t)
	const size = 24 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := a.Write(data) // nobody reads
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || n >= size {
		t.Fatalf("%d, %v", n, err)
	}
	b.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := b.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatal(err)
	}
	b.SetReadDeadline(time.Time{})
	a.SetWriteDeadline(time.Time{})
	done := make(chan error, 1)
	go func() {
		_, err := a.Write(data[n:])
		done <- errors.Join(err, a.CloseWrite())
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), size, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	a.Close()
	b.Close()
}

// What is not read when the buffer is given back is not read from it later: others write to it then.
func TestReleaseForgetsWhatIsNotRead(t *testing.T) {
	c, h := handed(t, tls.TLS_AES_128_GCM_SHA256, true)
	defer c.Close()
	if _, err := h.nc.Write(h.record(typeApplicationData, "unread")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	if n, err := c.Read(p[:1]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c.Release()
	if n, err := c.Read(p); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %q, %v", p[:n], err)
	}
	if next, err := c.Next(); len(next) > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Next: %q, %v", next, err)
	}
	c.Release()
}

// Close ends a Write and a Read that wait, and erases the keys.
func TestCloseWhileBusy(t *testing.T) {
	for range 20 {
		a, b := ours(t)
		done := make(chan error, 2)
		go func() {
			_, err := io.Copy(a, neverEnding{})
			done <- err
		}()
		go func() {
			_, err := a.Read(make([]byte, 1))
			done <- err
		}()
		if _, err := io.ReadFull(b, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		a.Close()
		for range 2 {
			if err := <-done; err == nil {
				t.Error("no error")
			}
		}
		if a.rx.keys.aead != nil || a.tx.keys.aead != nil || a.rx.keys.secret != nil || a.tx.keys.secret != nil {
			t.Error("the keys are still there")
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
		b.Close()
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

// The key schedule, by the trace of RFC 8448 section 3.
func TestKnownKeys(t *testing.T) {
	secret, _ := hex.DecodeString("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
	s := suiteOf(tls.TLS_AES_128_GCM_SHA256)
	key, err := s.expand(secret, "key", s.keyLen)
	if err != nil || hex.EncodeToString(key) != "17422dda596ed5d9acd890e3c63f5051" {
		t.Errorf("key %x, %v", key, err)
	}
	iv, err := s.expand(secret, "iv", ivLen)
	if err != nil || hex.EncodeToString(iv) != "5b78923dee08579033e523d9" {
		t.Errorf("iv %x, %v", iv, err)
	}
}
