//go:build e2e

package suites

import (
	"context"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("Bookinfo", Ordered, func() { bookinfo("e2e-bookinfo") })

// bookinfo are the specifications of Bookinfo in a namespace of its own.
func bookinfo(ns string) {
	deployments := []string{"productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"}
	sample := func(paths ...string) string {
		GinkgoHelper()
		text, err := cluster.Sample(paths...)
		Expect(err).NotTo(HaveOccurred())
		return strings.ReplaceAll(text, "ns/default/", "ns/"+ns+"/")
	}
	page := func(ctx context.Context, args ...string) Answer {
		return curl(ctx, ns, "curl", append(args, "http://productpage:9080/productpage")...)
	}
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, append(deployments, "curl"), sample("bookinfo/platform/kube/bookinfo.yaml"), clientManifest("curl"))
		for _, app := range []string{"productpage", "details", "ratings", "reviews", "curl"} {
			enrolled(ctx, ns, "app="+app)
		}
	})

	It("shows its page in ambient, under STRICT mutual TLS", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
`)
		Eventually(ctx, func() string { return page(ctx).Text }).Should(And(ContainSubstring("<title>Simple Bookstore App</title>"), ContainSubstring("Book Details"), ContainSubstring("Book Reviews")))
	})

	It("lets only those in that policies at the node name", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  rules: [{from: [{source: {principals: [cluster.local/ns/`+ns+`/sa/bookinfo-reviews]}}]}]
`)
		answers(ctx, ns, "curl", refused, "http://ratings:9080/ratings/0")
		Eventually(ctx, func() string { return page(ctx).Text }).Should(ContainSubstring("Book Reviews"))
	})

	Context("with a waypoint", Ordered, func() {
		BeforeAll(func(ctx SpecContext) {
			within(ctx, func(ctx context.Context) error {
				return cluster.Label(ctx, ns, map[string]string{"istio.io/use-waypoint": "waypoint"})
			})
			apply(ctx, ns, sample("bookinfo/gateway-api/waypoint.yaml"))
			within(ctx, func(ctx context.Context) error { return cluster.WaitRollout(ctx, lab.Deployment(ns, "waypoint")) })
			Eventually(ctx, func() string { return curl(ctx, ns, "curl", "http://reviews:9080/reviews/0").Text }).WithTimeout(patience).Should(ContainSubstring("server: istio-envoy"))
		})

		It("splits reviews 90/10", func(ctx SpecContext) {
			apply(ctx, ns, sample("bookinfo/networking/destination-rule-all.yaml", "bookinfo/networking/virtual-service-reviews-90-10.yaml"))
			Eventually(ctx, func() (float64, error) { return stars(ctx, ns, 200) }).WithTimeout(patience).Should(BeNumerically("~", 0.10, 0.07))
		})

		It("sends jason to v2", func(ctx SpecContext) {
			apply(ctx, ns, sample("bookinfo/networking/destination-rule-all.yaml", "bookinfo/networking/virtual-service-reviews-test-v2.yaml"))
			Eventually(ctx, func() string {
				return curl(ctx, ns, "curl", "-H", "end-user: jason", "http://reviews:9080/reviews/0").Text
			}).Should(ContainSubstring("black"))
			for range 10 {
				Expect(curl(ctx, ns, "curl", "http://reviews:9080/reviews/0").Text).NotTo(ContainSubstring("color"))
			}
		})

		It("aborts ratings for jason", func(ctx SpecContext) {
			apply(ctx, ns, sample("bookinfo/networking/destination-rule-all.yaml", "bookinfo/networking/virtual-service-ratings-test-abort.yaml"))
			answers(ctx, ns, "curl", "500", "-H", "end-user: jason", "http://ratings:9080/ratings/0")
			stays(ctx, ns, "curl", "200", "http://ratings:9080/ratings/0")
		})

		It("lets productpage read reviews, and nobody else", func(ctx SpecContext) {
			apply(ctx, ns, sample("bookinfo/policy/reviews-viewer.yaml"))
			a := answers(ctx, ns, "curl", "403", "http://reviews:9080/reviews/0")
			Expect(a.Text).To(ContainSubstring("RBAC: access denied"))
			Eventually(ctx, func() string { return page(ctx).Text }).Should(And(ContainSubstring("Book Reviews"), Not(ContainSubstring("currently unavailable"))))
		})
	})
}

// stars is which part of n answers of reviews has stars.
func stars(ctx context.Context, ns string, n int) (float64, error) {
	out, err := cluster.ExecIn(ctx, ns, "app=curl", "sh", "-c", "for i in $(seq "+strconv.Itoa(n)+"); do curl -sS -m 10 http://reviews:9080/reviews/0; echo; done")
	if err != nil {
		return 0, err
	}
	// 90 % are v1, which has no stars at all; 10 % are v2.
	return float64(countLines(out, "color")) / float64(n), nil
}

func countLines(text, part string) (n int) {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
