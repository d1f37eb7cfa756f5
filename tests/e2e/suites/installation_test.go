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
	within(ctx, func(ctx context.Context) error {
		_, err := cluster.RunIstioctl(ctx, "install", "-y", "--set", "profile=ambient", "--set", "hub="+cluster.Hub, "--set", "tag="+cluster.Tag)
		return err
	})
	within(ctx, func(ctx context.Context) error {
		return cluster.WaitRollout(ctx, lab.Istiod(), lab.CNI(), lab.Ztunnel())
	})
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
