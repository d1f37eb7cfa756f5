//go:build e2e

package suites

import (
	"context"
	"encoding/json"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

// The other suites run with the default: sklookup for pods that start, nft for others.
var _ = Describe("Redirection", Serial, SpecPriority(-5), func() {
	for _, backend := range []string{"nft", "iptables"} {
		Context("by "+backend, Ordered, func() {
			old := "e2e-redirect-" + backend
			BeforeAll(func(ctx SpecContext) {
				DeferCleanup(func(ctx SpecContext) { upgrade(ctx) }) // the installation as it was
				echoes(ctx, old, ambient())
				enrolled(ctx, old, "app=echo")
				enrolled(ctx, old, "app=client")
				stop := load(ctx, old, "client", "http://echo/")
				upgrade(ctx, "values.cni.ambient.redirectBackend="+backend)
				enrolled(ctx, old, "app=echo")
				enrolled(ctx, old, "app=client")
				stop()
			})

			It("is what pods get that start from now on", func(ctx SpecContext) {
				for _, name := range []string{"echo-v1", "echo-v2", "client"} {
					within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Deployment(old, name)) })
				}
				enrolled(ctx, old, "app=echo")
				enrolled(ctx, old, "app=client")
				Eventually(ctx, func() (map[string]string, error) { return backends(ctx, old, "app=echo", "app=client") }).
					WithTimeout(patience).Should(And(HaveLen(3), HaveEach(HavePrefix(backend))))
				answers(ctx, old, "client", "200", "http://echo/")
				apply(ctx, old, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/client]}}]}]}
`, old))
				answers(ctx, old, "client", refused, "http://echo/")
				stays(ctx, old, "client", refused, "http://echo/")
			})

			Context("with Bookinfo", Ordered, func() { bookinfo("e2e-bookinfo-" + backend) })
		})
	}

	It("is by sklookup for pods that are enrolled before they start", func(ctx SpecContext) {
		ns := "e2e-redirect-default"
		echoes(ctx, ns, ambient())
		enrolled(ctx, ns, "app=echo")
		Eventually(ctx, func() (map[string]string, error) { return backends(ctx, ns, "app=echo") }).
			WithTimeout(patience).Should(And(HaveLen(2), HaveEach("sklookup")))
		answers(ctx, ns, "client", "200", "http://echo/")
	})
})

// backends are the names of the back ends of pods, by their names, as the node agents tell them.
func backends(ctx context.Context, ns string, selectors ...string) (map[string]string, error) {
	agents, err := cluster.Pods(ctx, lab.SystemNamespace, "k8s-app=istio-cni-node")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for i := range agents {
		text, err := cluster.Client.CoreV1().RESTClient().Get().Namespace(lab.SystemNamespace).Resource("pods").Name(agents[i].Name + ":8000").
			SubResource("proxy").Suffix("status").DoRaw(ctx)
		if err != nil {
			return nil, fmt.Errorf("ask node agent %s: %w", agents[i].Name, err)
		}
		var statuses []struct{ Pod, Redirection string }
		if err := json.Unmarshal(text, &statuses); err != nil {
			return nil, fmt.Errorf("answer of node agent %s: %w", agents[i].Name, err)
		}
		for _, s := range statuses {
			all[s.Pod] = s.Redirection
		}
	}
	out := map[string]string{}
	for _, selector := range selectors {
		pods, err := cluster.Pods(ctx, ns, selector)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			out[pods[i].Name] = all[ns+"/"+pods[i].Name]
		}
	}
	return out, nil
}
