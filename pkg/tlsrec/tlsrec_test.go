package tlsrec

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// certificate is one self-signed certificate for all tests.
var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"peer.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
})

// files writes the certificate and its key for programs.
func files(t *testing.T) (cert, key string) {
	t.Helper()
	pair, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func configs(t testing.TB) (client, server *tls.Config) {
	t.Helper()
	pair, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	base := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	server = base.Clone()
	server.ClientAuth = tls.RequireAnyClientCert
	return base, server
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type handshaker func(context.Context, net.Conn, *tls.Config) (Secured, error)

// standardClient and standardServer are the oracle.
func standardClient(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	c := tls.Client(nc, config)
	return c, c.HandshakeContext(ctx)
}

func standardServer(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	c := tls.Server(nc, config)
	return c, c.HandshakeContext(ctx)
}

// shaken shakes hands between a and b.
func shaken(t testing.TB, a, b net.Conn, client, server handshaker) (Secured, Secured) {
	t.Helper()
	cc, sc := configs(t)
	return shakenWith(t, a, b, client, server, cc, sc)
}

func shakenWith(t testing.TB, a, b net.Conn, client, server handshaker, cc, sc *tls.Config) (Secured, Secured) {
	t.Helper()
	ctx := deadline(t)
	type result struct {
		c   Secured
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := server(ctx, b, sc)
		done <- result{c, err}
	}()
	c, err := client(ctx, a, cc)
	if err != nil {
		t.Fatal(err)
	}
	s := <-done
	if s.err != nil {
		t.Fatal(s.err)
	}
	return c, s.c
}

// ours returns two ends of records of ours.
func ours(t testing.TB) (client, server *Conn) {
	t.Helper()
	a, b := tcp.Pair(t)
	c, s := shaken(t, a, b, ownClient, ownServer)
	return c.(*Conn), s.(*Conn)
}

// choppy is a connection whose reads and writes come in pieces of any size.
type choppy struct {
	net.Conn
	mu     sync.Mutex
	random *mrand.Rand
}

func newChoppy(nc net.Conn, seed uint64) *choppy {
	return &choppy{Conn: nc, random: mrand.New(mrand.NewPCG(seed, 1))}
}

func (c *choppy) size(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	limits := []int{1, 5, 6, 22, 100, 4096, 16384, 16406, 70000}
	return min(n, 1+c.random.IntN(limits[c.random.IntN(len(limits))]))
}

func (c *choppy) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.Conn.Read(p[:c.size(len(p))])
}

func (c *choppy) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.Conn.Write(p[n : n+c.size(len(p)-n)])
		n += k
	}
	return n, err
}

func (c *choppy) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// send writes n bytes of a sequence in pieces of any size, then the end.
func send(c Secured, seed uint64, n int, between func(*mrand.Rand) error) error {
	random := mrand.New(mrand.NewPCG(seed, 2))
	data := mrand.NewChaCha8([32]byte{byte(seed)})
	buf := make([]byte, 300<<10)
	for n > 0 {
		limits := []int{1, 10, 1000, 16384, 16385, 70000, len(buf)}
		p := buf[:min(n, 1+random.IntN(limits[random.IntN(len(limits))]))]
		_, _ = data.Read(p)
		if own, ok := c.(*Conn); ok && random.IntN(2) == 0 {
			if _, err := own.WriteOwned(p); err != nil {
				return err
			}
		} else if _, err := c.Write(p); err != nil {
			return err
		}
		n -= len(p)
		if between != nil {
			if err := between(random); err != nil {
				return err
			}
		}
	}
	return c.CloseWrite()
}

// sequence checks that what is written to it is what send sends.
type sequence struct {
	data *mrand.ChaCha8
	n    int
	bad  bool
}

func newSequence(seed uint64) *sequence {
	return &sequence{data: mrand.NewChaCha8([32]byte{byte(seed)})}
}

// Write implements io.Writer.
func (s *sequence) Write(p []byte) (int, error) {
	want := make([]byte, len(p))
	_, _ = s.data.Read(want)
	s.bad = s.bad || string(want) != string(p)
	s.n += len(p)
	return len(p), nil
}

// drain reads by all means that there are until the end.
func drain(c Secured, to io.Writer, random *mrand.Rand) error {
	buf := make([]byte, 40000)
	for {
		var p []byte
		var err error
		if own, ok := c.(*Conn); ok && random.IntN(2) == 0 {
			p, err = own.Next()
		} else {
			var n int
			n, err = c.Read(buf[:1+random.IntN(len(buf))])
			p = buf[:n]
		}
		if _, werr := to.Write(p); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
