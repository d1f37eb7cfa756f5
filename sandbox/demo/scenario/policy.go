package scenario

import (
	"context"
	"fmt"
	"time"
)

const reviewsURL = "http://reviews:9080/reviews/0"

const allowProductpage = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews-for-productpage, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/bookinfo-productpage"]}}]
`

const denyCurl = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-curl, namespace: default}
spec:
  selector: {matchLabels: {app: ratings}}
  action: DENY
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/curl"]}}]
`

// Policy lets one caller reach a service and refuses another.
func (b *Bed) Policy(ctx context.Context) {
	b.Report.Section("L4 authorization by identity")
	b.refusal(ctx, refusal{
		caller: "default/deploy/curl", url: reviewsURL, answer: "reviewer", policyFile: "reviews-for-productpage.yaml", policy: allowProductpage,
		says: "an ALLOW policy for productpage refuses curl", log: `allow policies exist \(default/reviews-for-productpage\), but none allowed`,
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/productpage-v1", reviewsURL, "reviewer"); err != nil {
			return "", err
		}
		return "the same policy lets productpage reach reviews", nil
	})
	b.remove(ctx, allowProductpage)
	b.refusal(ctx, refusal{
		caller: "default/deploy/curl", url: "http://ratings:9080/ratings/0", answer: "ratings", policyFile: "no-curl.yaml", policy: denyCurl,
		says: "a DENY policy refuses curl at ratings", log: `explicitly denied by default/no-curl rule\[0\]`,
	})
	b.remove(ctx, denyCurl)
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/curl", "http://ratings:9080/ratings/0", "ratings"); err != nil {
			return "", err
		}
		return "without the policies curl reaches ratings again", nil
	})
}

// refusal is a call that succeeds until a policy refuses it.
type refusal struct {
	caller, url, answer string
	policyFile, policy  string
	says, log           string
}

func (b *Bed) refusal(ctx context.Context, r refusal) {
	var line string
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, r.caller, r.url, r.answer); err != nil {
			return "", fmt.Errorf("before the policy: %w", err)
		}
		since := time.Now()
		if err := b.apply(ctx, r.policyFile, r.policy); err != nil {
			return "", err
		}
		o, err := b.mustNotGet(ctx, r.caller, r.url)
		if err != nil {
			return "", err
		}
		took := time.Since(since)
		if line, err = b.findLog(ctx, since, r.log); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s: the same call succeeded before, is refused %d ms after (curl's exit code %d)", r.says, took.Milliseconds(), o.code), nil
	})
	if line != "" {
		b.Report.Detail("%s", line)
	}
}

// remove deletes what a check has applied.
func (b *Bed) remove(ctx context.Context, manifest string) {
	if _, err := b.Sandbox.Delete(ctx, "demo", []byte(manifest)); err != nil {
		b.Report.Check(ctx, func(context.Context) (string, error) { return "", fmt.Errorf("clean up: %w", err) })
	}
}
