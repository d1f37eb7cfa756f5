package tlsrec

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// probeTime bounds the probe.
const probeTime = 5 * time.Second

// KernelSeals tries on the loopback interface whether the kernel seals records as [Conn.SealInKernel] needs it: with each cipher suite, and
// with keys that change. It says what the kernel cannot do, and is nil where it can.
func KernelSeals(ctx context.Context) error {
	for _, id := range []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256} {
		if err := kernelSeals(ctx, suiteOf(id)); err != nil {
			return fmt.Errorf("%s: %w", tls.CipherSuiteName(id), err)
		}
	}
	return nil
}

func kernelSeals(ctx context.Context, s *suite) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	from, to, err := loopback(ctx)
	if err != nil {
		return fmt.Errorf("a connection to try with: %w", err)
	}
	defer from.Close()
	defer to.Close()
	if until, ok := ctx.Deadline(); ok {
		from.SetDeadline(until)
		to.SetDeadline(until)
	}
	secret := make([]byte, s.hashLen())
	_, _ = rand.Read(secret) // never fails
	out, err := newKeys(s, clone(secret), 0)
	if err != nil {
		return err
	}
	open, err := newKeys(s, secret, 0)
	if err != nil {
		return err
	}
	defer open.erase()
	c := newConn(from, true, tls.ConnectionState{}, &keys{suite: s}, out)
	defer c.tx.keys.erase()
	if err := c.SealInKernel(); err != nil {
		return err
	}
	const text = "probe"
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	if err := expectRecord(to, open, typeApplicationData, []byte(text)); err != nil {
		return err
	}
	if err := c.UpdateKeys(false); err != nil {
		return fmt.Errorf("change the keys: %w", err)
	}
	if err := expectRecord(to, open, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 0}); err != nil {
		return err
	}
	if err := open.update(); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	return expectRecord(to, open, typeApplicationData, []byte(text))
}

// expectRecord reads one record, which is to say that.
func expectRecord(r io.Reader, k *keys, want recordType, content []byte) error {
	record := make([]byte, headLen+maxSealed)
	if _, err := io.ReadFull(r, record[:headLen]); err != nil {
		return fmt.Errorf("read what the kernel has sealed: %w", err)
	}
	n := recordLen(record)
	if n < 1+tagLen || n > maxSealed {
		return errors.New("what the kernel has sealed is no record")
	}
	record = record[:headLen+n]
	if _, err := io.ReadFull(r, record[headLen:]); err != nil {
		return fmt.Errorf("read what the kernel has sealed: %w", err)
	}
	if typ, got, alert := k.open(record); alert != 0 || typ != want || !bytes.Equal(got, content) {
		return errors.New("what the kernel has sealed cannot be opened")
	}
	return nil
}

// loopback returns both ends of a TCP connection.
func loopback(ctx context.Context) (a, b net.Conn, err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "localhost:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	var dialer net.Dialer
	if a, err = dialer.DialContext(ctx, "tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	if until, ok := ctx.Deadline(); ok {
		if tcp, is := listener.(*net.TCPListener); is {
			_ = tcp.SetDeadline(until) // Accept ends with the listener otherwise
		}
	}
	for {
		if b, err = listener.Accept(); err != nil {
			a.Close()
			return nil, nil, err
		}
		if b.RemoteAddr().String() == a.LocalAddr().String() {
			return a, b, nil
		}
		b.Close() // somebody else's
	}
}
