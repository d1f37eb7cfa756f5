package scenario

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
)

const (
	waypointFile = "bookinfo/gateway-api/waypoint.yaml"
	subsets      = "bookinfo/networking/destination-rule-all.yaml"
	split        = "bookinfo/networking/virtual-service-reviews-90-10.yaml"
	forJason     = "bookinfo/networking/virtual-service-reviews-test-v2.yaml"
	perVersion   = "bookinfo/platform/kube/bookinfo-versions.yaml"
	routeV3      = "bookinfo/gateway-api/route-reviews-v3.yaml"

	jason = "end-user: jason"
	// splitCalls are enough for a split that is right to be off by more than splitMargin once in a hundred thousand runs.
	splitCalls  = 2000
	splitMargin = 0.03
)

// Waypoint gives namespace default a waypoint, and routes by it.
func (b *Bed) Waypoint(ctx context.Context) {
	b.Report.Section("A waypoint for the namespace: routes by weight and by header")
	b.Report.Check(ctx, b.bind)
	if err := b.sample(ctx, subsets); err != nil {
		b.Report.Check(ctx, func(context.Context) (string, error) { return "", err })
		return
	}
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.sample(ctx, split); err != nil {
			return "", err
		}
		if err := b.only(ctx, []string{"v1", "v2"}); err != nil {
			return "", err
		}
		begin := time.Now()
		seen, err := b.versions(ctx, splitCalls)
		if err != nil {
			return "", err
		}
		share := float64(seen["v1"]) / splitCalls
		if math.Abs(share-0.9) > splitMargin || seen["v1"]+seen["v2"] != splitCalls {
			return "", expected(fmt.Sprintf("90 %% ± %.0f %% to v1 and the rest to v2", splitMargin*100), "%v of %d", seen, splitCalls)
		}
		return fmt.Sprintf("VirtualService 90/10: of %d requests over one connection %.1f %% went to v1 and %.1f %% to v2 (%.1f s)",
			splitCalls, share*100, 100-share*100, time.Since(begin).Seconds()), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.sample(ctx, forJason); err != nil {
			return "", err
		}
		if err := b.only(ctx, []string{"v2"}, "-H", jason); err != nil {
			return "", err
		}
		if err := b.only(ctx, []string{"v1"}); err != nil {
			return "", err
		}
		return "user jason gets reviews v2 for all of 30 requests, everybody else v1", nil
	})
	b.takeBack(ctx, forJason)
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.sample(ctx, perVersion); err != nil {
			return "", err
		}
		if err := b.sample(ctx, routeV3); err != nil {
			return "", err
		}
		if err := b.only(ctx, []string{"v3"}); err != nil {
			return "", err
		}
		return "an HTTPRoute on Service reviews sends all to Service reviews-v3", nil
	})
	b.takeBack(ctx, routeV3)
}

// bind makes the waypoint, and has the namespace's services use it while they are called.
func (b *Bed) bind(ctx context.Context) (string, error) {
	begin := time.Now()
	if err := b.sample(ctx, waypointFile); err != nil {
		return "", err
	}
	address, err := b.programmed(ctx, "waypoint")
	if err != nil {
		return "", err
	}
	deployed := time.Since(begin)
	name := "waypoint"
	since := time.Now()
	if err := b.Sandbox.Label(ctx, "Namespace", "", "default", map[string]*string{"istio.io/use-waypoint": &name}); err != nil {
		return "", err
	}
	through := func(r reply) bool { return r.status == 200 && strings.Contains(r.head, "server: istio-envoy") }
	if _, err := b.until(ctx, "reviews to answer by way of the waypoint", through, inMesh, reviewsURL); err != nil {
		return "", err
	}
	took := time.Since(since)
	line, err := b.findLog(ctx, since, `direction="outbound"`, `src.identity="spiffe://cluster.local/ns/default/sa/curl"`, `dst.workload="waypoint-`)
	if err != nil {
		return "", err
	}
	b.Report.Detail("%s", line)
	return fmt.Sprintf("the Gateway was deployed and programmed, at %s, after %.1f s; %d ms after the namespace was labelled calls go through it, as the caller",
		address, deployed.Seconds(), took.Milliseconds()), nil
}
