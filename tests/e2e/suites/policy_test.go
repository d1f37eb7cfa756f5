//go:build e2e

package suites

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// refused is how curl sees a connection that a node proxy cuts.
const refused = "000"

var _ = Describe("Policy at the node", Ordered, func() {
	const ns = "e2e-policy"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, ambient())
		namespace(ctx, ns+"-outside", nil)
		deploy(ctx, ns+"-outside", []string{"client"}, clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
		enrolled(ctx, ns, "app=other")
	})

	It("allows one account and refuses the rest (TestAuthorizationL4)", func(ctx SpecContext) {
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/client]}}]}]
`, ns))
		answers(ctx, ns, "other", refused, "http://echo/")
		stays(ctx, ns, "other", refused, "http://echo/")
		stays(ctx, ns, "client", "200", "http://echo/")
		stays(ctx, ns+"-outside", "client", refused, "http://echo."+ns+"/")
	})

	It("denies by namespace, whatever allows", func(ctx SpecContext) {
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec:
  action: DENY
  rules: [{from: [{source: {namespaces: [%s]}}], to: [{operation: {ports: ["8080"]}}]}]
`, ns))
		answers(ctx, ns, "client", refused, "http://echo/")
		stays(ctx, ns, "client", refused, "http://echo/")
	})

	It("takes only the mesh where it is STRICT (TestPeerAuthentication)", func(ctx SpecContext) {
		answers(ctx, ns+"-outside", "client", "200", "http://echo."+ns+"/")
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
`)
		answers(ctx, ns+"-outside", "client", refused, "http://echo."+ns+"/")
		stays(ctx, ns, "client", "200", "http://echo/")
	})

	It("is shown in the status of the policy", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: l7}
spec:
  action: ALLOW
  rules: [{to: [{operation: {methods: [GET]}}]}]
`)
		// A rule about HTTP at the node allows nobody: it fails closed, and says why.
		answers(ctx, ns, "client", refused, "http://echo/")
		Eventually(ctx, func() (string, error) { return policyCondition(ctx, ns, "l7", "ZtunnelAccepted") }).Should(ContainSubstring("methods"))
	})
})

var _ = Describe("Policy at the waypoint", Ordered, func() {
	const ns = "e2e-l7policy"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
		waypoint(ctx, ns, "waypoint", "")
		through(ctx, ns, "http://echo/")
	})

	It("allows methods and paths to one account (TestAuthorizationL7, TestAuthorizationServiceAttached)", func(ctx SpecContext) {
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: echo}
spec:
  targetRefs: [{group: "", kind: Service, name: echo}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/%s/sa/client]}}]
    to: [{operation: {methods: [GET], paths: [/allowed/*]}}]
`, ns))
		answers(ctx, ns, "client", "403", "http://echo/")
		Expect(curl(ctx, ns, "client", "http://echo/").Text).To(ContainSubstring("RBAC: access denied"))
		stays(ctx, ns, "client", "200", "http://echo/allowed/x")
		stays(ctx, ns, "client", "403", "-X", "POST", "http://echo/allowed/x")
		stays(ctx, ns, "client", "403", "--path-as-is", "http://echo/allowed/../secret")
		stays(ctx, ns, "other", "403", "http://echo/allowed/x")
		// The policy is of one service; another is not concerned.
		stays(ctx, ns, "other", "200", "http://echo-v1/")
	})

	It("refuses what no rule allows on the whole waypoint (TestAuthorizationGateway)", func(ctx SpecContext) {
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
`)
		answers(ctx, ns, "client", "403", "http://echo/")
		stays(ctx, ns, "client", "403", "http://echo-v2/")
	})

	It("is not got around: pods take only the waypoint where the node says so (TestAuthorizationWaypointDefaultDeny)", func(ctx SpecContext) {
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: waypoint-only}
spec:
  selector: {matchLabels: {app: echo}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/waypoint]}}]}]
`, ns))
		pod, err := cluster.Pod(ctx, ns, "app=echo,version=v1")
		Expect(err).NotTo(HaveOccurred())
		answers(ctx, ns, "client", refused, "http://"+pod.Status.PodIP+":8080/")
		stays(ctx, ns, "client", "200", "http://echo/")
	})

	It("asks for a token and reads its claims (TestL7JWT)", func(ctx SpecContext) {
		key := newSigner()
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: echo}
spec:
  targetRefs: [{group: "", kind: Service, name: echo}]
  jwtRules: [{issuer: tests@isthmus, jwks: '%s'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: echo}
spec:
  targetRefs: [{group: "", kind: Service, name: echo}]
  action: ALLOW
  rules: [{from: [{source: {requestPrincipals: [tests@isthmus/*]}}], when: [{key: "request.auth.claims[group]", values: [readers]}]}]
`, key.jwks()))
		answers(ctx, ns, "client", "403", "http://echo/")
		bearer := func(token string) []string { return []string{"-H", "Authorization: Bearer " + token, "http://echo/"} }
		answers(ctx, ns, "client", "200", bearer(key.token("tests@isthmus", "readers"))...)
		answers(ctx, ns, "client", "403", bearer(key.token("tests@isthmus", "writers"))...)
		answers(ctx, ns, "client", "401", bearer(newSigner().token("tests@isthmus", "readers"))...)
		stays(ctx, ns, "client", "401", bearer("garbage")...)
	})
})

// policyCondition is the reason and message of a condition of an AuthorizationPolicy.
func policyCondition(ctx context.Context, ns, name, kind string) (string, error) {
	return conditionText(ctx, "security.istio.io", "authorizationpolicies", ns, name, kind)
}
