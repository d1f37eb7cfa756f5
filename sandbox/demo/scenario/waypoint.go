package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

// bind makes the waypoint, and has the namespace's services use it.
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
	line, err := b.findLog(ctx, since, `connection complete`, `direction="outbound"`, `src.identity="spiffe://cluster.local/ns/default/sa/curl"`, `dst.workload="waypoint-`, `bytes_recv=[1-9]`)
	if err != nil {
		return "", err
	}
	b.Report.Detail("%s", line)
	if err := b.bound(ctx, "reviews"); err != nil {
		return "", err
	}
	return fmt.Sprintf("the Gateway was deployed and programmed, at %s, after %.1f s; %d ms after the namespace was labelled calls go through it, as the caller",
		address, deployed.Seconds(), took.Milliseconds()), nil
}

// bound waits until a Service's status says that it uses its waypoint.
func (b *Bed) bound(ctx context.Context, name string) error {
	var seen string
	waited := b.eventually(ctx, func() bool {
		seen = ""
		list, err := b.Sandbox.List(ctx, "Service", "default")
		for _, raw := range list {
			var s struct {
				Metadata struct{ Name string }
				Status   struct {
					Conditions []struct{ Type, Status, Message string }
				}
			}
			if err != nil || json.Unmarshal(raw, &s) != nil || s.Metadata.Name != name {
				continue
			}
			for _, c := range s.Status.Conditions {
				if c.Type == "istio.io/WaypointBound" {
					seen = c.Status + ": " + c.Message
				}
			}
		}
		return strings.HasPrefix(seen, "True")
	})
	if waited != nil {
		return expected("Service "+name+" to say that it is bound to its waypoint", "%q", seen)
	}
	return nil
}

// Telemetry is what the waypoint says of the requests before.
func (b *Bed) Telemetry(ctx context.Context) {
	b.Report.Section("What the waypoint tells of requests")
	const proxy = "default/deploy/waypoint"
	since := time.Now()
	for range 3 {
		if r, err := b.fetch(ctx, inMesh, reviewsURL); err != nil || r.status != 200 {
			b.Report.Check(ctx, func(context.Context) (string, error) { return "", expected("reviews to answer", "%s %v", r, err) })
		}
	}
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		var line string
		waited := b.eventually(ctx, func() bool {
			o, err := b.exec(ctx, proxy, "curl", "-s", "http://localhost:15020/stats/prometheus")
			line = match(o.stdout, `^istio_requests_total\{`, `reporter="waypoint"`, `source_workload="curl"`, `source_principal="spiffe://cluster.local/ns/default/sa/curl"`,
				`destination_workload="reviews-v\d"`, `destination_service="reviews.default.svc.cluster.local"`, `connection_security_policy="mutual_tls"`, `response_code="200"`)
			return err == nil && line != ""
		})
		if waited != nil {
			return "", expected("istio_requests_total for curl's requests of reviews", "none")
		}
		return "istio_requests_total names source and destination of each request, with their identities", nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		log := ""
		waited := b.eventually(ctx, func() bool {
			out, err := b.Sandbox.Logs(ctx, "default", "deploy/waypoint", "", false, since)
			if err != nil {
				return false
			}
			defer out.Close()
			text, err := io.ReadAll(out)
			log = match(string(text), `"GET /reviews/0 HTTP/1.1" 200 - via_upstream`, `inbound-vip\|9080\|http\|reviews.default.svc.cluster.local`)
			return err == nil && log != ""
		})
		if waited != nil {
			return "", expected("a line of the access log for curl's request of reviews", "none")
		}
		b.Report.Detail("%s", log)
		return "so does its access log, in Envoy's default format", nil
	})
}
