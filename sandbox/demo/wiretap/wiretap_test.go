package wiretap_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox/demo/wiretap"
)

var (
	client = netip.MustParseAddrPort("10.244.1.5:40000")
	server = netip.MustParseAddrPort("10.244.2.7:15008")
)

// capture writes a little-endian Ethernet capture of the segments.
func capture(segments ...wiretap.Segment) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	out = append(out, make([]byte, 16)...)
	out = binary.LittleEndian.AppendUint32(out, 1)
	for _, s := range segments {
		tcp := binary.BigEndian.AppendUint16(nil, s.Source.Port())
		tcp = binary.BigEndian.AppendUint16(tcp, s.Destination.Port())
		tcp = append(tcp, make([]byte, 8)...)
		tcp = append(tcp, 5<<4)
		tcp = append(tcp, make([]byte, 7)...)
		tcp = append(tcp, s.Payload...)
		source, destination := s.Source.Addr().As4(), s.Destination.Addr().As4()
		ip := make([]byte, 20)
		ip[0], ip[9] = 0x45, 6
		binary.BigEndian.PutUint16(ip[2:4], uint16(20+len(tcp)))
		copy(ip[12:16], source[:])
		copy(ip[16:20], destination[:])
		frame := append(make([]byte, 12), 0x08, 0x00)
		frame = append(append(frame, ip...), tcp...)
		out = append(out, make([]byte, 8)...)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(frame)))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(frame)))
		out = append(out, frame...)
	}
	return out
}

func TestReadFindsPayloadAcrossSegments(t *testing.T) {
	raw := capture(
		wiretap.Segment{Source: client, Destination: server, Payload: []byte("GET /prod")},
		wiretap.Segment{Source: server, Destination: client, Payload: []byte("unrelated")},
		wiretap.Segment{Source: client, Destination: server, Payload: []byte("uctpage")},
		wiretap.Segment{Source: client, Destination: server},
	)
	segments, err := wiretap.Read(bytes.NewReader(raw[:len(raw)-3]))
	if err != nil {
		t.Fatal(err)
	}
	if len(segments) != 3 {
		t.Fatalf("%d segments", len(segments))
	}
	if !wiretap.Contains(segments, "/productpage") || wiretap.Contains(segments, "pageunrelated") {
		t.Error("text across segments of one direction is found, across directions it is not")
	}
	flows := wiretap.Flows(segments)
	if len(flows) != 1 || flows[0] != (wiretap.Flow{Client: client, Server: server, Bytes: 25}) {
		t.Errorf("flows %v", flows)
	}
}

func TestReadRefusesWhatIsNoCapture(t *testing.T) {
	if _, err := wiretap.Read(bytes.NewReader(make([]byte, 64))); err == nil {
		t.Error("zeros were read as a capture")
	}
}

func TestTLSVersionIsTheOneNegotiated(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		hello := serverFlight(t, version)
		got := wiretap.TLSVersions([]wiretap.Segment{{Source: server, Destination: client, Payload: hello}}, 15008)
		if len(got) != 1 || got[version] != 1 {
			t.Errorf("%x: versions %v", version, got)
		}
	}
}

// serverFlight is what a crypto/tls server first sends when it may speak only version.
func serverFlight(t *testing.T, version uint16) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	deadline := time.Now().Add(time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan struct{}, 2)
	recorder := &recordingConn{Conn: a}
	go func() {
		tls.Client(b, &tls.Config{InsecureSkipVerify: true}).Handshake()
		b.Close()
		done <- struct{}{}
	}()
	go func() {
		config := &tls.Config{MaxVersion: version, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		tls.Server(recorder, config).Handshake()
		a.Close()
		done <- struct{}{}
	}()
	<-done
	<-done
	return recorder.written.Bytes()
}

type recordingConn struct {
	net.Conn
	written bytes.Buffer
}

func (c *recordingConn) Write(p []byte) (int, error) {
	c.written.Write(p)
	return c.Conn.Write(p)
}

func FuzzRead(f *testing.F) {
	f.Add(capture(wiretap.Segment{Source: client, Destination: server, Payload: []byte("x")}))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		segments, err := wiretap.Read(io.LimitReader(bytes.NewReader(raw), 1<<16))
		if err == nil {
			wiretap.TLSVersions(segments, 15008)
			wiretap.Flows(segments)
		}
	})
}
