package upgradebed

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/sandbox/demo/wiretap"
)

func envoyProgram(t *testing.T) string {
	t.Helper()
	program, err := filepath.Abs("../../../out/envoy/envoy")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		t.Fatalf("the real Envoy is missing: run `make envoy` (%v)", err)
	}
	return program
}

// places are where the foreign peer is.
func places() map[string]Foreign {
	return map[string]Foreign{"Envoy as the client": Client, "Envoy as the server": Server}
}

const tls13 = 0x0304

// overheard judges what was on the wire.
func overheard(t *testing.T, all []wiretap.Findings, phases int) {
	t.Helper()
	if len(all) != phases {
		t.Fatalf("listened %d times, want %d", len(all), phases)
	}
	for n, f := range all {
		if n > 0 && f.Tunnelled <= all[n-1].Tunnelled {
			t.Errorf("nothing crossed in phase %d", n)
		}
		if len(f.Readable)+len(f.Foreign)+len(f.Elsewhere)+f.Lost > 0 || len(f.Versions) != 1 || f.Versions[tls13] == 0 {
			t.Errorf("phase %d: readable %q, no records %q, on other ports %v, handshakes %v; of %d directions a part was not captured", n, f.Readable, f.Foreign, f.Elsewhere, f.Versions, f.Lost)
		}
	}
	last := all[len(all)-1]
	t.Logf("on the wire: %d bytes in records on port %d, %d handshakes of TLS 1.3, nothing else, nothing readable", last.Tunnelled, tunnelPort, last.Versions[tls13])
}

// TestForeignPeersStayConnected: a real Envoy keeps its tunnels, and every byte in them, while the node proxy that it talks to is
// replaced, twice.
func TestForeignPeersStayConnected(t *testing.T) {
	for name, place := range places() {
		t.Run(name, func(t *testing.T) {
			const rounds, idle, streams, conversations = 2, 60, 10, 6
			r, err := Run(t.Context(), Options{
				Foreign: place, Envoy: envoyProgram(t), Rounds: rounds, Idle: idle, Streams: streams, Conversations: conversations, Tap: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Dropped+r.Changed != 0 {
				t.Errorf("%d dropped, %d changed, the first: %v", r.Dropped, r.Changed, r.First)
			}
			if n := strings.Count(r.Log, "an old instance has handed over"); n != rounds || strings.Count(r.Log, "refused=0") != rounds {
				t.Errorf("%d instances have handed over", n)
			}
			overheard(t, r.Wire, rounds+2)
			if t.Failed() {
				t.Log(r.Log)
			}
			t.Logf("%d idle, %d streaming, %d conversing, %d requests; longest gap %s, an old instance leaves within %s",
				idle, streams, conversations, r.Requests, r.Longest, r.Leaving)
		})
	}
}

// TestForeignPeersDrain: over crypto/tls nothing moves. What is open goes on in the old instance, which leaves when all of it has ended;
// what is new goes to its successor.
func TestForeignPeersDrain(t *testing.T) {
	for name, place := range places() {
		t.Run(name, func(t *testing.T) {
			r, err := Run(t.Context(), Options{
				Foreign: place, Envoy: envoyProgram(t), Standard: true, Patient: true, Idle: 10, Streams: 4, Conversations: 4, Tap: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Dropped+r.Changed != 0 {
				t.Errorf("%d dropped, %d changed, the first: %v", r.Dropped, r.Changed, r.First)
			}
			if !strings.Contains(r.Log, "handed over	connections=0 tunnels=0 stayed=") {
				t.Error("something was handed over")
			}
			if r.Leaving >= drainTime {
				t.Errorf("the old instance has left after %s, when its time was up", r.Leaving)
			}
			overheard(t, r.Wire, 3)
			if t.Failed() {
				t.Log(r.Log)
			}
			t.Logf("%d requests; the old instance has left within %s, when nothing was open", r.Requests, r.Leaving)
		})
	}
}
