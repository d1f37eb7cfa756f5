//go:build e2e

package suites

import (
	"context"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

// removeMesh leaves nothing of the mesh, however it was installed.
func removeMesh(ctx context.Context) {
	GinkgoHelper()
	within(ctx, func(ctx context.Context) error {
		_, err := cluster.RunIstioctl(ctx, "uninstall", "--purge", "-y")
		return err
	})
	Eventually(ctx, func() ([]string, error) { return leftovers(ctx) }).WithTimeout(patience).Should(BeEmpty())
}

// installMesh installs it as the driver of the suites did.
func installMesh(ctx SpecContext) {
	GinkgoHelper()
	install(ctx, "install")
}

// upgrade makes the installation what the driver of the suites installed, with settings of the form PATH=VALUE besides. Those of
// earlier upgrades are gone.
func upgrade(ctx context.Context, sets ...string) {
	GinkgoHelper()
	install(ctx, "upgrade", sets...)
}

// install runs a command of istioctl that installs, and waits for what it installs.
func install(ctx context.Context, verb string, sets ...string) {
	GinkgoHelper()
	within(ctx, func(ctx context.Context) error {
		_, err := cluster.RunIstioctl(ctx, installation(verb, cluster.Tag, sets...)...)
		return err
	})
	within(ctx, func(ctx context.Context) error {
		return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel())
	})
}

// installation is the arguments of such a command.
func installation(verb, tag string, sets ...string) []string {
	args := []string{verb, "-y"}
	for _, s := range append([]string{"profile=ambient", "hub=" + cluster.Hub, "tag=" + tag}, sets...) {
		args = append(args, "--set", s)
	}
	return args
}

// only leaves what has a word in it.
func only(all []string, word string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return !strings.Contains(s, word) })
}

// except leaves out what has one of the words in it.
func except(all []string, words ...string) []string {
	return slices.DeleteFunc(all, func(s string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(s, word) })
	})
}
