package tlsrec

import (
	"crypto/tls"
	"encoding/hex"
	"net"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// A connection that the kernel does not seal goes on by itself, whatever the reason. Where it does, tests with the build tag ktls say so.
func TestWithoutTheKernel(t *testing.T) {
	a, b := tcp.Pair(t)
	client, server := shaken(t, newChoppy(a, 1), b, Client, Server)
	if err := client.(*Conn).SealInKernel(); err == nil {
		t.Error("the kernel seals what is not a socket")
	}
	cannot := KernelSeals(t.Context())
	t.Logf("this kernel: %v", cannot)
	if sealed := server.(*Conn).SealInKernel() == nil; sealed && cannot != nil {
		return // it seals, but cannot change keys: who asks for it after all gets what exchange would not like
	} else if !sealed && cannot == nil {
		t.Error("the kernel seals when tried, and does not when asked")
	}
	exchange(t, client, server, 1, 1<<20)
}

// The kernel's structures, by the layout of linux/tls.h, with the server's keys of RFC 8448 section 3.
func TestKernelInfo(t *testing.T) {
	secret, err := hex.DecodeString("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKeys(suiteOf(tls.TLS_AES_128_GCM_SHA256), secret, 0x0102)
	if err != nil {
		t.Fatal(err)
	}
	info, err := k.kernelInfo()
	if err != nil {
		t.Fatal(err)
	}
	// Version and cipher are of the machine's order, which is little-endian wherever this is built for.
	const want = "0403" + "3300" + "ee08579033e523d9" + "17422dda596ed5d9acd890e3c63f5051" + "5b78923d" + "0000000000000102"
	if got := hex.EncodeToString(info); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for id, size := range map[uint16]int{tls.TLS_AES_256_GCM_SHA384: 4 + 8 + 32 + 4 + 8, tls.TLS_CHACHA20_POLY1305_SHA256: 4 + 12 + 32 + 8} {
		s := suiteOf(id)
		k, err := newKeys(s, make([]byte, s.hashLen()), 0)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := k.kernelInfo(); err != nil || len(info) != size {
			t.Errorf("%s: %d bytes, %v, want %d", tls.CipherSuiteName(id), len(info), err, size)
		}
		k.erase()
		if _, err := k.kernelInfo(); err == nil {
			t.Error("erased keys are given away")
		}
	}
}

// A state for the kernel needs a socket whose records the kernel seals.
func TestAKernelsStateNeedsItsSocket(t *testing.T) {
	nc, peer := tcp.Pair(t)
	client, _ := shaken(t, nc, peer, Client, standardServer)
	state, err := client.(*Conn).Export()
	if err != nil {
		t.Fatal(err)
	}
	encoded := state.Append(nil)
	encoded[0] = kernelVersion
	for name, over := range map[string]net.Conn{"its socket": nc, "no socket": newChoppy(nc, 1)} {
		parsed, err := ParseState(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Resume(over, parsed); err == nil {
			t.Errorf("a state of the other kind goes on over %s", name)
		}
	}
}
