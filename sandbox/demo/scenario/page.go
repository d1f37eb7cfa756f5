package scenario

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

const (
	productpage = "http://productpage:9080/productpage"
	pageTitle   = "<title>Simple Bookstore App</title>"
)

// Page fetches Bookinfo's page as a user would, through all four services.
func (b *Bed) Page(ctx context.Context) {
	b.Report.Section("Bookinfo, in a namespace labelled istio.io/dataplane-mode=ambient")
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		status, err := b.Sandbox.Status(ctx)
		if err != nil {
			return "", err
		}
		enrolled, nodes := 0, map[string]bool{}
		for _, p := range status.Pods {
			if p.Namespace != "default" {
				continue
			}
			if !p.Ready || p.Redirection != "enabled" {
				return "", expected("every pod of namespace default ready and enrolled", "%s ready=%t redirection=%q", p.Name, p.Ready, p.Redirection)
			}
			enrolled++
			nodes[p.Node] = true
		}
		if enrolled < 6 || len(nodes) < 2 {
			return "", expected("Bookinfo's pods on two nodes", "%d pods on %d nodes", enrolled, len(nodes))
		}
		return fmt.Sprintf("%d pods on %d nodes are ready and enrolled, none has a sidecar", enrolled, len(nodes)), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/curl", productpage, pageTitle); err != nil {
			return "", err
		}
		o, err := b.get(ctx, "default/deploy/curl", productpage)
		if err != nil {
			return "", err
		}
		title := regexp.MustCompile(`<title>([^<]*)</title>`).FindStringSubmatch(o.stdout)
		reviews := strings.Count(o.stdout, "Reviewer")
		if title == nil || reviews < 2 {
			return "", expected("a title and two reviews in the page", "title %v, %d reviews", title, reviews)
		}
		return fmt.Sprintf("product page fetched from inside the mesh: title %q, %d reviews, %d bytes", title[1], reviews, len(o.stdout)), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		seen := map[string]int{}
		for range 12 {
			o, err := b.get(ctx, "default/deploy/curl", "http://reviews:9080/reviews/0")
			if err != nil || o.code != 0 {
				return "", expected("reviews to answer", "%s %v", o, err)
			}
			if v := regexp.MustCompile(`"podname": ?"(reviews-v\d)`).FindStringSubmatch(o.stdout); v != nil {
				seen[v[1]]++
			}
		}
		if len(seen) < 2 {
			return "", expected("several versions of reviews to answer", "%v", seen)
		}
		return fmt.Sprintf("connections spread over the service's pods: %v of 12", seen), nil
	})
}
