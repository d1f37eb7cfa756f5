package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// The log of a flood is short, and says how long it is not. Another reason, the other direction, and the next second have their lines.
func TestFloodsOfCutTunnelsAreLoggedSparingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		written := &podtest.Log{}
		log, _ := telemetry.NewLogger(written, telemetry.Options{})
		metrics, err := NewMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		deps := Deps{Metrics: metrics, Log: log, AccessLog: log, Budget: budget.NewNode(budget.Limits{})}
		i := newInstance(deps, Pod{Info: Info{Name: "server", Namespace: "shop"}})
		defer i.pool.Close()
		peer := netip.MustParseAddrPort("10.0.0.1:1234")
		flood := h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "PING flood"}
		cut := func(times int, direction string, err error, want ...string) {
			t.Helper()
			before := written.String()
			for range times {
				i.cut(direction, peer, err)
			}
			lines := strings.Split(strings.TrimSuffix(strings.TrimPrefix(written.String(), before), "\n"), "\n")
			if got := strings.Join(lines, "\n"); len(want) == 0 && got != "" || len(want) > 0 && len(lines) != 1 {
				t.Errorf("logged %d lines, want %d: %s", len(lines), min(1, len(want)), got)
			}
			for _, w := range want {
				if !strings.Contains(lines[0], w) {
					t.Errorf("%s: there is no %s", lines[0], w)
				}
			}
		}
		cut(1000, directionInbound, flood, "warn", "tunnel connection cut", `reason="PING flood"`, "left_out=0", "peer=10.0.0.1:1234")
		cut(5, directionInbound, flood)
		cut(1, directionInbound, hbone.ErrStalled, `reason="peer does not read"`, "left_out=0")
		cut(1, directionOutbound, flood, `direction="outbound"`, "left_out=0")
		cut(10, directionInbound, context.Canceled) // nobody's fault
		time.Sleep(time.Second)                     // of the bubble
		cut(3, directionInbound, flood, `reason="PING flood"`, "left_out=1004")
		if got := testutil.ToFloat64(metrics.peersCut.WithLabelValues(directionInbound, "PING flood")); got != 1008 {
			t.Errorf("%v are counted, of 1008", got)
		}
	})
}

func TestShedConnectionsAreLoggedSparingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		written := &podtest.Log{}
		log, _ := telemetry.NewLogger(written, telemetry.Options{Level: slog.LevelWarn})
		i := newInstance(Deps{AccessLog: log, Budget: budget.NewNode(budget.Limits{})}, Pod{Info: Info{Name: "server", Namespace: "shop"}})
		defer i.pool.Close()
		for range 7 {
			i.shed(budget.Connections, directionInbound, netip.AddrPort{}, errShare)
			i.shed(budget.Handshakes, directionInbound, netip.AddrPort{}, errTooManyHandshakes)
		}
		time.Sleep(time.Second) // of the bubble
		i.shed(budget.Connections, directionInbound, netip.AddrPort{}, errShare)
		if got := written.String(); strings.Count(got, "\n") != 3 || strings.Count(got, "left_out=0") != 2 || strings.Count(got, "left_out=6") != 1 {
			t.Errorf("want a line for each reason and one a second later, which tells of 6:\n%s", got)
		}
	})
}
