package tlsrec

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// spill prints v in every way that logs, dumps and errors use.
func spill(v any) string {
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%t"} {
		fmt.Fprintf(&out, verb+"\n", v)
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("it", "it", v, slog.Group("g", "it", v))
	}
	text, err := json.Marshal(v)
	fmt.Fprintln(&out, string(text), err)
	fmt.Fprintln(&out, gob.NewEncoder(&out).Encode(v))
	func() {
		defer func() { fmt.Fprintln(&out, recover()) }()
		panic(v)
	}()
	return out.String()
}

// leaks looks for a secret in the forms in which bytes are printed.
func leaks(text string, secret []byte) bool {
	for n := 0; n+6 <= len(secret); n++ {
		part := secret[n : n+6]
		list := strings.Trim(fmt.Sprintf("%d", part), "[]")
		words := make([]string, len(part))
		for i, b := range part {
			words[i] = fmt.Sprintf("%#x", b)
		}
		for _, form := range []string{
			string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), list,
			strings.ReplaceAll(list, " ", ","), strings.ReplaceAll(list, " ", ", "), strings.Join(words, ", "),
		} {
			if strings.Contains(text, form) {
				return true
			}
		}
	}
	return false
}

// No key is in what is printed of a connection, of what holds one, of its state, or of its errors.
func TestNothingPrintsKeys(t *testing.T) {
	a, b := ours(t)
	defer b.Close()
	secrets := func(c *Conn) (out [][]byte) {
		for _, k := range []*keys{c.rx.keys, c.tx.keys} {
			key, err := k.suite.expand(k.secret, "key", k.suite.keyLen)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, clone(k.secret), key, clone(k.iv[:]))
		}
		return out
	}
	all := append(secrets(a), secrets(b)...)
	type holder struct {
		Conn   *Conn
		inner  *Conn
		nc     net.Conn
		Any    any
		list   []net.Conn
		byName map[string]net.Conn
	}
	h := holder{a, a, a, a, []net.Conn{a}, map[string]net.Conn{"a": a}}
	things := []any{a, h, &h, []any{a, h}, map[string]any{"a": a, "h": &h}, fmt.Errorf("wrapped: %v %+v", a, h), a.ConnectionState()}
	b.nc.Write([]byte("no record at all"))
	_, err := a.Read(make([]byte, 1))
	things = append(things, err, fmt.Errorf("read: %w", err))
	c, d := ours(t)
	defer d.Close()
	all = append(all, secrets(c)...)
	state, err := c.Export()
	if err != nil {
		t.Fatal(err)
	}
	type keeper struct {
		State  *State
		Value  State
		hidden *State
	}
	_, err = c.Write([]byte("x"))
	things = append(things, state, *state, keeper{state, *state, state}, &keeper{state, *state, state}, []State{*state}, err)
	parsed, err := ParseState(state.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	_, short := ParseState(state.Append(nil)[:60])
	_, resumed := Resume(d.NetConn(), &State{func() *live { l := *parsed.reveal(); l.in.secret = l.in.secret[:5]; return &l }})
	things = append(things, parsed, short, resumed)
	stack := make([]byte, 1<<20)
	things = append(things, string(stack[:runtime.Stack(stack, true)]))
	for i, thing := range things {
		text := spill(thing)
		for _, secret := range all {
			if leaks(text, secret) {
				t.Errorf("thing %d, a %T, shows a key", i, thing)
			}
		}
	}
	if !leaks(fmt.Sprintf("%x", all[0]), all[0]) || !leaks(fmt.Sprintf("%d", all[1]), all[1]) || !leaks(fmt.Sprintf("%#v", all[1]), all[1]) {
		t.Error("the test itself does not see a key")
	}
	a.Close()
}

// crypto/tls hands its key log line over and does not use it again; ours keeps no copy of it.
func TestKeyLogIsWiped(t *testing.T) {
	line := []byte("CLIENT_TRAFFIC_SECRET_0 00112233 " + strings.Repeat("ab", 32) + "\n")
	var l keyLog
	if n, err := l.Write(line); n != len(line) || err != nil || len(l.client) != 32 {
		t.Fatal(n, err, l.client)
	}
	if !bytes.Equal(line, make([]byte, len(line))) {
		t.Error("the line is still there")
	}
	kept := l.client
	l.erase()
	if !bytes.Equal(kept, make([]byte, 32)) || l.client != nil {
		t.Error("the secret is still there")
	}
	if _, err := l.Write([]byte("CLIENT_TRAFFIC_SECRET_0 x zz\n")); err == nil || leaks(err.Error(), []byte("zz")) {
		t.Error(err)
	}
}

// State has no exported field, and every method that an encoder looks for is redacted.
func TestStateIsOpaque(t *testing.T) {
	typ := reflect.TypeFor[State]()
	for i := range typ.NumField() {
		if f := typ.Field(i); f.IsExported() || f.Type.Kind() != reflect.Func {
			t.Errorf("field %s", f.Name)
		}
	}
}

// A connection that is handed over, again and again and at any point, loses nothing in either direction.
func TestHandOver(t *testing.T) {
	for _, peer := range []handshaker{standardServer, Server} {
		for seed := range uint64(3) {
			a, b := tcp.Pair(t)
			client, server := shaken(t, a, b, ownClient, peer)
			const size = 2 << 20
			type outcome struct {
				check *sequence
				err   error
			}
			done := make(chan outcome, 1)
			go func() {
				check := newSequence(seed)
				errc := make(chan error, 1)
				go func() { errc <- send(server, seed+50, size, nil) }()
				err := drain(server, check, mrand.New(mrand.NewPCG(seed, 3)))
				if werr := <-errc; err == nil {
					err = werr
				}
				done <- outcome{check, err}
			}()
			check := handOver(t, client.(*Conn), a, seed, size)
			if check.bad || check.n != size {
				t.Errorf("received %d of %d bytes, changed: %v", check.n, size, check.bad)
			}
			if o := <-done; o.err != nil || o.check.bad || o.check.n != size {
				t.Errorf("the peer received %d of %d bytes, changed: %v, %v", o.check.n, size, o.check.bad, o.err)
			}
			server.Close()
		}
	}
}

// handOver sends and receives by turns, and goes on with another Conn in between.
func handOver(t *testing.T, c *Conn, socket *net.TCPConn, seed uint64, size int) *sequence {
	t.Helper()
	random := mrand.New(mrand.NewPCG(seed, 9))
	data := mrand.NewChaCha8([32]byte{byte(seed)})
	check := newSequence(seed + 50)
	buf := make([]byte, 100<<10)
	var rest []byte
	for sent, ended, eof := 0, false, false; !ended || !eof; {
		c.SetDeadline(time.Now().Add(time.Duration(random.IntN(3)) * time.Millisecond))
		if len(rest) == 0 && sent < size {
			rest = buf[:min(size-sent, 1+random.IntN(len(buf)))]
			_, _ = data.Read(rest)
			sent += len(rest)
		}
		n, err := c.Write(rest)
		rest = rest[n:]
		mustBeTimeout(t, err)
		if len(rest) == 0 && sent == size && !ended && err == nil {
			c.SetDeadline(time.Time{})
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			ended = true
		}
		p := make([]byte, 1+random.IntN(30000))
		n, err = c.Read(p)
		_, _ = check.Write(p[:n])
		if eof = eof || errors.Is(err, io.EOF); !eof {
			mustBeTimeout(t, err)
		}
		if random.IntN(3) == 0 {
			c = resumed(t, c, socket)
		}
		if ended && !eof {
			rest = nil
		}
	}
	c.Close()
	return check
}

func resumed(t *testing.T, c *Conn, socket *net.TCPConn) *Conn {
	t.Helper()
	state, err := c.Export()
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []func([]byte) (int, error){c.Read, c.Write} {
		if _, err := op(make([]byte, 1)); !errors.Is(err, ErrExported) {
			t.Fatalf("used after its export: %v", err)
		}
	}
	wire := state.Append(nil)
	state.Erase()
	parsed, err := ParseState(wire)
	if err != nil {
		t.Fatal(err)
	}
	if len(wire)%2 == 0 { // nobody wanted it
		if err := c.Restore(parsed); err != nil {
			t.Fatal(err)
		}
		if err := c.Restore(parsed); err == nil {
			t.Fatal("restored twice")
		}
		return c
	}
	next, err := Resume(socket, parsed)
	if err != nil {
		t.Fatal(err)
	}
	if before, after := c.ConnectionState(), next.ConnectionState(); before.NegotiatedProtocol != after.NegotiatedProtocol ||
		before.CipherSuite != after.CipherSuite || len(before.PeerCertificates) != len(after.PeerCertificates) {
		t.Fatalf("resumed as %+v", after)
	}
	return next
}

func mustBeTimeout(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errCloseSent) {
		t.Fatal(err)
	}
}
