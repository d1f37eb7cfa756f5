package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/handover"
)

func TestPlainParcelsArriveWhole(t *testing.T) {
	want := carried{
		outbound: true, secure: true, src: netip.MustParseAddrPort("10.0.0.1:4000"), dst: netip.MustParseAddrPort("10.0.0.2:80"),
		actualDst: netip.MustParseAddrPort("[fd00::1]:80"), originalDst: "10.0.0.2:80", hboneDst: "web.shop:80", source: "c//Pod/shop/a",
		destination: "c//Pod/shop/b", service: "shop/web", sourceID: "spiffe://td/ns/shop/sa/a", destinationID: "spiffe://td/ns/shop/sa/b",
		checkSource: netip.MustParseAddrPort("10.0.0.1:4000"), start: time.Unix(0, 1234567890123), sentBytes: 1 << 40, receivedBytes: 7,
		sent: netx.Way{Ended: true}, received: netx.Way{Rest: []byte("rest")},
	}
	body := (&parcel{form: movePlain, pod: "uid", conns: []carried{want}}).encode()
	p, err := decodeParcel(body)
	if err != nil {
		t.Fatal(err)
	}
	if p.pod != "uid" || fmt.Sprintf("%+v", p.conns[0]) != fmt.Sprintf("%+v", want) {
		t.Errorf("came %+v\nwant %+v", p.conns[0], want)
	}
	for cut := range body {
		if _, err := decodeParcel(body[:cut]); err == nil {
			t.Fatalf("cut at %d, nothing is missed", cut)
		}
	}
	if _, err := decodeParcel(append(body, 0)); err == nil {
		t.Error("what is left over is not missed")
	}
}

func FuzzDecodeParcel(f *testing.F) {
	for name := range parcelForms() {
		body, err := os.ReadFile(recording(handover.MostVersion, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add((&parcel{form: movePlain, pod: "uid", conns: make([]carried, 1)}).encode())
	f.Add([]byte{moveServer, 0, 0, 1, 1})
	f.Add([]byte{moveClient, 0, 0, 0, 0, 0, 0, 1, 1})
	f.Fuzz(func(_ *testing.T, b []byte) {
		if p, err := OpenParcel(b); err == nil {
			p.Erase()
		}
	})
}
