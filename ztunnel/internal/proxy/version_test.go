package proxy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/handover"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

var update = flag.Bool("update", false, "record the parcels of this version anew")

func parcelForms() map[string]uint64 {
	return map[string]uint64{"plain": movePlain, "client": moveClient, "server": moveServer}
}

// recording is what a build of a version has offered of a real connection. Those of a version that has been released do not change
// any more.
func recording(version uint64, form string) string {
	return filepath.Join("testdata", "parcels", fmt.Sprintf("v%d-%s", version, form))
}

// TestParcelsOfEachVersionAreRead: this build reads what the builds before have offered, and what it offers itself is byte for byte
// what they read. Whoever changes the form raises handover.MostVersion, and records parcels of that one beside the older ones.
func TestParcelsOfEachVersionAreRead(t *testing.T) {
	if *update {
		if transport == hbone.Standard {
			return // no tunnel is offered
		}
		recordParcels(t)
	}
	for version := handover.LeastVersion; version <= handover.MostVersion; version++ {
		for name, form := range parcelForms() {
			body, err := os.ReadFile(recording(version, name))
			if err != nil {
				t.Fatal(err)
			}
			p, err := decodeParcel(body)
			if err != nil {
				t.Errorf("v%d, %s: %v", version, name, err)
				continue
			}
			if again := p.encode(); version == handover.MostVersion && !bytes.Equal(again, body) {
				t.Errorf("v%d, %s: %d bytes become %d others under the same version", version, name, len(body), len(again))
			}
			pod, identity := "client", "spiffe://cluster.local/ns/shop/sa/client"
			if form == moveServer {
				pod = "server"
			}
			if form == movePlain {
				identity = ""
			}
			c := &p.conns[0]
			if p.form != form || p.pod != pod || len(p.conns) != 1 || c.outbound != (form != moveServer) || c.src.Addr().String() != clientIP ||
				c.sourceID != identity || c.receivedBytes < uint64(len("hello ")) || (p.tunnel != nil) != c.secure {
				t.Errorf("v%d, %s: %+v", version, name, c)
			}
			(&Parcel{p}).Erase()
		}
	}
}

func recordParcels(t *testing.T) {
	t.Helper()
	for _, hboned := range []bool{true, false} {
		b := newBed(t)
		b.apply(t, pod("client", clientIP, "node-a", hboned), pod("server", serverIP, "node-b", hboned))
		podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
		if _, _, err := b.dial(t); err != nil {
			t.Fatal(err)
		}
		for n, p := range b.proxies {
			offered := false
			p.HandOver(t.Context(), successor(func(body []byte, _ []int) error {
				form := "plain"
				if hboned {
					form = []string{"client", "server"}[n]
				}
				if name := recording(handover.MostVersion, form); !offered && (hboned || n == 0) {
					offered = true
					if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, body, 0o644)); err != nil {
						t.Error(err)
					}
				}
				return errors.New("no")
			}))
		}
	}
}
