package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const reviewsViewer = "bookinfo/policy/reviews-viewer.yaml"

// noStyles refuses the style sheets of the page, in its waypoint.
const noStyles = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-styles, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: productpage}]
  action: DENY
  rules: [{to: [{operation: {paths: ["/static/*"]}}]}]
`

// ingressByWaypoint sends what comes through the ingress gateway by way of the service's waypoint, and back.
func (b *Bed) ingressByWaypoint(ctx context.Context) (string, error) {
	const styles = "/static/bookinfo.css"
	fromIngress := "http://" + ingressHost + styles
	if err := b.apply(ctx, "no-styles.yaml", noStyles); err != nil {
		return "", err
	}
	defer b.remove(ctx, noStyles)
	if _, err := b.until(ctx, "the waypoint to refuse the style sheet", status(403), inMesh, "http://productpage:9080"+styles); err != nil {
		return "", err
	}
	if r, err := b.fetch(ctx, fromOutside, fromIngress); err != nil || r.status != 200 {
		return "", expected("the gateway to go past the waypoint without the label", "%s %v", r, err)
	}
	label := func(value *string) error {
		return b.Sandbox.Label(ctx, "Service", "default", "productpage", map[string]*string{"istio.io/ingress-use-waypoint": value})
	}
	yes, since := "true", time.Now()
	if err := label(&yes); err != nil {
		return "", err
	}
	r, err := b.until(ctx, "status 403 through the gateway", status(403), fromOutside, fromIngress)
	took := time.Since(since)
	if back := label(nil); err == nil {
		err = back
	}
	if err != nil {
		return "", err
	}
	if _, err := b.until(ctx, "the style sheet through the gateway again", status(200), fromOutside, fromIngress); err != nil {
		return "", err
	}
	return fmt.Sprintf("istio.io/ingress-use-waypoint on Service productpage: %d ms after, the waypoint's policy holds for the ingress gateway too (%d, %q); without the label it goes to the pods",
		took.Milliseconds(), r.status, strings.TrimSpace(r.body)), nil
}

// L7Policy lets one caller use one method.
func (b *Bed) L7Policy(ctx context.Context) {
	b.Report.Section("L7 authorization in the waypoint")
	const viewer = "default/deploy/productpage-v1"
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if _, err := b.until(ctx, "reviews to answer curl before the policy", status(200), inMesh, reviewsURL); err != nil {
			return "", err
		}
		since := time.Now()
		if err := b.sample(ctx, reviewsViewer); err != nil {
			return "", err
		}
		r, err := b.until(ctx, "status 403", status(403), inMesh, reviewsURL)
		if err != nil {
			return "", err
		}
		took := time.Since(since)
		if strings.TrimSpace(r.body) != "RBAC: access denied" {
			return "", expected("RBAC: access denied", "%s", r)
		}
		return fmt.Sprintf("GET for productpage only: %d ms after, curl is answered %d, %q", took.Milliseconds(), r.status, strings.TrimSpace(r.body)), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		r, err := b.fetch(ctx, viewer, reviewsURL)
		if err != nil || r.status != 200 {
			return "", expected("productpage to read reviews", "%s %v", r, err)
		}
		post, err := b.fetch(ctx, viewer, "-X", "POST", reviewsURL)
		if err != nil || post.status != 403 {
			return "", expected("POST to be refused", "%s %v", post, err)
		}
		page, err := b.fetch(ctx, inMesh, productpage)
		if err != nil || page.status != 200 || strings.Contains(page.body, reviewsSorry) {
			return "", expected("the page with its reviews", "%s %v", page, err)
		}
		return fmt.Sprintf("productpage reads reviews (%d), but may not POST (%d); the page is whole", r.status, post.status), nil
	})
	b.takeBack(ctx, reviewsViewer)
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if _, err := b.until(ctx, "reviews to answer curl again", status(200), inMesh, reviewsURL); err != nil {
			return "", err
		}
		return "without the policy curl reaches reviews again", nil
	})
	b.Report.Check(ctx, b.ingressByWaypoint)
}
