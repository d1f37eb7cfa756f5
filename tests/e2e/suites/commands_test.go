//go:build e2e

package suites

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
)

// What people type, against a cluster: the columns themselves are compared byte for byte in istioctl's own tests.
var _ = Describe("Commands", Ordered, func() {
	const ns = "e2e-commands"
	BeforeAll(func(ctx SpecContext) {
		echoes(ctx, ns, map[string]string{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
		waypoint(ctx, ns, "waypoint", "")
		through(ctx, ns, "http://echo/")
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: node}
spec:
  selector: {matchLabels: {app: echo}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/nobody]}}]}]
`, ns))
	})
	prints := func(ctx context.Context, want types.GomegaMatcher, args ...string) {
		GinkgoHelper()
		var out string
		Eventually(ctx, func() (string, error) {
			var err error
			out, err = cluster.RunIstioctl(ctx, args...)
			return out, err
		}).WithTimeout(patience).Should(want, strings.Join(args, " "))
	}
	// row matches a line with these cells one after the other.
	row := func(cells ...string) types.GomegaMatcher { return MatchRegexp(`(?m)^` + strings.Join(cells, `\s+`)) }

	It("show what node proxies have (TestZtunnelConfig)", func(ctx SpecContext) {
		prints(ctx, And(row("NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"), row(ns, `echo-v1-\S+`, `\S+`, `\S+`, "None", "HBONE")), "ztunnel-config", "workload")
		prints(ctx, And(row("NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"), row(ns, "echo", `\S+`, "waypoint", "2/2")), "zc", "service")
		prints(ctx, row(ns, "node", "Deny", "WorkloadSelector"), "zc", "policy")
		prints(ctx, And(row("CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
			row("spiffe://cluster.local/ns/"+ns+"/sa/client", "Leaf", "Available", "true")), "zc", "certificate")
		prints(ctx, ContainSubstring("echo"), "zc", "connections")
		prints(ctx, ContainSubstring("current log level"), "zc", "log")
		out, err := cluster.RunIstioctl(ctx, "zc", "certificate", "-o", "json")
		Expect(err).NotTo(HaveOccurred())
		Expect(json.Valid([]byte(out))).To(BeTrue(), out)
		Expect(out).NotTo(ContainSubstring("PRIVATE KEY"))
	})

	It("show what a waypoint has", func(ctx SpecContext) {
		w := "deploy/waypoint." + ns
		prints(ctx, And(row("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"), ContainSubstring("echo."+ns+".svc.cluster.local")), "proxy-config", "cluster", w)
		prints(ctx, ContainSubstring("connect_terminate"), "pc", "listener", w, "--waypoint")
		prints(ctx, ContainSubstring("echo"), "pc", "route", w)
		prints(ctx, ContainSubstring("HEALTHY"), "pc", "endpoint", w)
		prints(ctx, And(row("RESOURCE NAME", "TYPE", "STATUS", "VALID CERT"), row("default", "Cert Chain", "ACTIVE", "true")), "pc", "secret", w)
		prints(ctx, And(row("NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"), row(`waypoint-\S+\.`+ns, "Kubernetes", `istiod-\S+`, `\S+`, `4 \(CDS,LDS,EDS,RDS\)`),
			row(`ztunnel-\S+`, "Kubernetes", `istiod-\S+`, `\S+`, `2 \(WDS,WADS\)`)), "proxy-status")
		prints(ctx, row("waypoint", "default", "service", "True"), "waypoint", "list", "-n", ns)
		prints(ctx, row(ns, "waypoint", "True"), "waypoint", "status", "-n", ns)
	})

	It("say why, with the real thing", func(ctx SpecContext) {
		prints(ctx, And(ContainSubstring("ALLOWED"), ContainSubstring("as predicted")), "why", "deploy/client."+ns, "echo."+ns+":80", "GET", "/", "--probe")
		apply(ctx, ns, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: refuse}
spec:
  targetRefs: [{group: "", kind: Service, name: echo}]
  action: DENY
  rules: [{to: [{operation: {paths: [/secret]}}]}]
`)
		answers(ctx, ns, "client", "403", "http://echo/secret")
		Eventually(ctx, func() string {
			out, _ := cluster.RunIstioctl(ctx, "why", "deploy/client."+ns, "echo."+ns+":80", "GET", "/secret", "--probe")
			return out
		}).WithTimeout(patience).Should(And(ContainSubstring("DENIED"), ContainSubstring("refuse"), ContainSubstring("as predicted")))
	})

	It("describe, check and report", func(ctx SpecContext) {
		prints(ctx, ContainSubstring("echo"), "x", "describe", "service", "echo", "-n", ns)
		// A policy at the node that names callers, behind a waypoint: they get through.
		Eventually(ctx, func() string {
			out, _ := cluster.RunIstioctl(ctx, "analyze", "-n", ns) // its exit status says that there is something
			return out
		}).WithTimeout(patience).Should(ContainSubstring("Error [ISM0010] (AuthorizationPolicy " + ns + "/node)"))
		prints(ctx, Not(BeEmpty()), "x", "precheck")
		dir := GinkgoT().TempDir()
		within(ctx, func(ctx context.Context) error {
			_, err := cluster.RunIstioctl(ctx, "bug-report", "--dir", filepath.Join(dir, "mesh"), "--output-dir", dir, "--timeout", "60s", "--include", ns)
			return err
		})
		archives, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
		Expect(err).NotTo(HaveOccurred())
		Expect(archives).NotTo(BeEmpty())
	})
})
