package scenario

import (
	"context"
	"fmt"
	"time"
)

// Outage takes the control plane away: what is known stays in force.
func (b *Bed) Outage(ctx context.Context) {
	b.Report.Section("The control plane is away")
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/curl", productpage, pageTitle); err != nil {
			return "", err
		}
		if err := b.Sandbox.Scale(ctx, meshNamespace, "istiod", 0); err != nil {
			return "", err
		}
		if err := b.eventually(ctx, func() bool { _, err := b.pod(ctx, meshNamespace, "istiod"); return err != nil }); err != nil {
			return "", expected("istiod stopped", "it still runs")
		}
		for range 10 {
			o, err := b.get(ctx, "default/deploy/curl", productpage)
			if err != nil || o.code != 0 {
				return "", expected("the page without a control plane", "%s %v", o, err)
			}
		}
		return "istiod scaled to 0: ten pages fetched meanwhile, all through the mesh", nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.Sandbox.Scale(ctx, meshNamespace, "istiod", 1); err != nil {
			return "", err
		}
		if err := b.Sandbox.WaitReady(ctx, meshNamespace); err != nil {
			return "", err
		}
		since := time.Now()
		if err := b.apply(ctx, "no-curl.yaml", denyCurl); err != nil {
			return "", err
		}
		if _, err := b.mustNotGet(ctx, "default/deploy/curl", "http://ratings:9080/ratings/0"); err != nil {
			return "", err
		}
		took := time.Since(since)
		b.remove(ctx, denyCurl)
		if err := b.mustGet(ctx, "default/deploy/curl", "http://ratings:9080/ratings/0", "ratings"); err != nil {
			return "", err
		}
		return fmt.Sprintf("istiod is back: the proxies follow it again (a new policy is in force after %d ms)", took.Milliseconds()), nil
	})
}
