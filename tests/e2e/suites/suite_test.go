//go:build e2e

package suites

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

// cluster is set once, before the specifications run.
var cluster *lab.Cluster

// patience bounds what has to converge: roll-outs on a busy machine take longest.
const patience = 4 * time.Minute

func TestMesh(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(2 * time.Minute)
	EnforceDefaultTimeoutsWhenUsingContexts() // else whoever polls with a context does so until the whole suite ends
	SetDefaultEventuallyPollingInterval(300 * time.Millisecond)
	RunSpecs(t, "The mesh on Kubernetes")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	cluster, err = lab.Open(ctx, lab.FromEnvironment())
	Expect(err).NotTo(HaveOccurred())
	ctx2, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	Expect(cluster.WaitRollout(ctx2, lab.Istiod(), lab.CNI(), lab.Ztunnel())).To(Succeed(), "the mesh is not installed or not ready")
})

// reported makes one report of the first failure: later ones are often its consequence.
var reported sync.Once

var _ = JustAfterEach(func(ctx SpecContext) {
	if !CurrentSpecReport().Failed() || cluster == nil || cluster.Artifacts == "" {
		return
	}
	reported.Do(func() {
		dir := filepath.Join(cluster.Artifacts, "bug-report")
		if err := cluster.BugReport(ctx, dir); err != nil {
			GinkgoWriter.Println("no bug report:", err)
			return
		}
		GinkgoWriter.Println("bug report of the first failure:", dir)
	})
})

// within bounds one step of a specification.
func within(ctx context.Context, step func(context.Context) error) {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	Expect(step(ctx)).To(Succeed())
}

// namespace makes a namespace that goes with the specifications of its container.
func namespace(ctx context.Context, name string, labels map[string]string) {
	GinkgoHelper()
	within(ctx, func(ctx context.Context) error { return cluster.CreateNamespace(ctx, name, labels) })
	DeferCleanup(func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error { return cluster.DeleteNamespace(ctx, name) })
	})
}

// ambient are the labels of an enrolled namespace.
func ambient() map[string]string { return map[string]string{"istio.io/dataplane-mode": "ambient"} }

// apply applies a manifest and takes it away after the present node: specification or container.
func apply(ctx context.Context, ns, manifest string) {
	GinkgoHelper()
	within(ctx, func(ctx context.Context) error { return cluster.Apply(ctx, ns, manifest) })
	DeferCleanup(func(ctx SpecContext) {
		within(ctx, func(ctx context.Context) error { return cluster.Delete(ctx, ns, manifest) })
	})
}
