package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const reviewsViewer = "bookinfo/policy/reviews-viewer.yaml"

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
}
