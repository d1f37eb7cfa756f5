//go:build e2e

package suites

import (
	"context"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("Helm", Ordered, Serial, SpecPriority(-13), func() {
	const ns = "e2e-helm"
	// releases are the charts in the order of their installation, by the names that Istio's documents give the releases.
	releases := [][2]string{{"istio-base", "base"}, {"istiod", "istiod"}, {"istio-cni", "cni"}, {"ztunnel", "ztunnel"}}
	chart := func(name string) string { return filepath.Join(cluster.Operator, "charts", name) }
	values := func() []string {
		return []string{"--set", "profile=ambient", "--set", "global.hub=" + cluster.Hub, "--set", "global.tag=" + cluster.Tag}
	}
	helm := func(ctx context.Context, args ...string) string {
		GinkgoHelper()
		var out string
		within(ctx, func(ctx context.Context) (err error) {
			out, err = cluster.Run(ctx, nil, cluster.Helm, args...)
			return err
		})
		return out
	}
	BeforeAll(func() {
		if cluster.Helm == "" || cluster.Kubectl == "" {
			Skip("the driver was called without -helm")
		}
	})

	It("finds no fault with the charts", func(ctx SpecContext) {
		for _, name := range []string{"base", "istiod", "cni", "ztunnel", "gateway"} {
			Expect(helm(ctx, "lint", "--strict", chart(name))).To(ContainSubstring("0 chart(s) failed"))
		}
	})

	It("renders what the API server accepts, for every profile", func(ctx SpecContext) {
		for _, profile := range []string{"ambient", "default", "demo", "minimal", "openshift", "openshift-ambient", "preview", "remote", "stable"} {
			for _, name := range []string{"base", "istiod", "cni", "ztunnel", "gateway"} {
				args := []string{"template", "dry-run", chart(name), "-n", lab.SystemNamespace, "--set", "profile=" + profile, "--set", "global.remotePilotAddress=192.0.2.7"}
				if name == "base" && profile != "ambient" {
					args = append(args, "--set", "base.enableCRDTemplates=false") // they are large, and the same
				}
				rendered := helm(ctx, args...)
				if strings.TrimSpace(rendered) == "" {
					continue
				}
				within(ctx, func(ctx context.Context) error {
					_, err := cluster.Run(ctx, strings.NewReader(rendered), cluster.Kubectl, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
					return err
				})
			}
		}
	})

	It("installs the node agents and the node proxies into namespaces of their own", func(ctx SpecContext) {
		const agents, proxies, apps = "e2e-helm-cni", "e2e-helm-ztunnel", ns + "-apart"
		removeMesh(ctx)
		DeferCleanup(installMesh)
		for _, name := range []string{agents, proxies} {
			namespace(ctx, name, map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})
		}
		in := map[string]string{"base": lab.SystemNamespace, "istiod": lab.SystemNamespace, "cni": agents, "ztunnel": proxies}
		for _, r := range releases {
			args := append([]string{"install", r[0], chart(r[1]), "-n", in[r[1]], "--create-namespace", "--wait", "--timeout", patience.String()}, values()...)
			if r[1] == "istiod" {
				args = append(args, "--set", "trustedZtunnelNamespace="+proxies, "--set", "taint.enabled=true", "--set", "taint.namespace="+agents)
			}
			helm(ctx, args...)
		}
		DeferCleanup(func(ctx SpecContext) {
			for i := range releases {
				r := releases[len(releases)-1-i]
				helm(ctx, "uninstall", r[0], "-n", in[r[1]], "--wait", "--timeout", patience.String())
			}
			removeMesh(ctx)
		})
		namespace(ctx, apps, ambient())
		deploy(ctx, apps, []string{"echo-v1", "client"}, echoManifest("v1", 1), clientManifest("client"))
		enrolled(ctx, apps, "app=echo")
		enrolled(ctx, apps, "app=client")
		waypoint(ctx, apps, "waypoint", "")
		within(ctx, func(ctx context.Context) error {
			return cluster.Label(ctx, apps, map[string]string{"istio.io/use-waypoint": "waypoint"})
		})
		through(ctx, apps, "http://echo/")
	})

	It("installs the mesh", func(ctx SpecContext) {
		removeMesh(ctx)
		DeferCleanup(installMesh)
		for _, r := range releases {
			helm(ctx, append([]string{"install", r[0], chart(r[1]), "-n", lab.SystemNamespace, "--create-namespace", "--wait", "--timeout", patience.String()}, values()...)...)
		}
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel())
		})
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 2), clientManifest("client"))
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
		answers(ctx, ns, "client", "200", "http://echo/")

		By("upgrading it")
		stop := load(ctx, ns, "client", "http://echo/")
		for _, r := range releases {
			args := append([]string{"upgrade", r[0], chart(r[1]), "-n", lab.SystemNamespace, "--wait", "--timeout", patience.String()}, values()...)
			if r[1] != "base" { // which has no pods
				args = append(args, "--set", "podAnnotations.upgraded=yes")
			}
			helm(ctx, args...)
		}
		within(ctx, func(ctx context.Context) error {
			return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel())
		})
		stop()

		By("removing it")
		for i := range releases {
			helm(ctx, "uninstall", releases[len(releases)-1-i][0], "-n", lab.SystemNamespace, "--wait", "--timeout", patience.String())
		}
		// What istiod made is not Helm's: the key of the authority, root certificates, leases and gateway classes go with --purge.
		removeMesh(ctx)
	})
})
