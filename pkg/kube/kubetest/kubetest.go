package kubetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
)

// Option changes how the server is started.
type Option func(*apiserver.Config)

// WithoutCRDs starts a server that knows only what Kubernetes itself defines.
func WithoutCRDs() Option {
	return func(c *apiserver.Config) { c.CRDs = nil }
}

// WithFlags adds flags of kube-apiserver.
func WithFlags(flags ...string) Option {
	return func(c *apiserver.Config) { c.Flags = append(c.Flags, flags...) }
}

// Start runs a server for the time of one test and returns how to reach it as a member of system:masters.
func Start(t testing.TB, options ...Option) *rest.Config {
	t.Helper()
	return New(t, options...).REST()
}

// New runs a server for the time of one test.
func New(t testing.TB, options ...Option) *apiserver.Server {
	t.Helper()
	s, err := start(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Main runs the tests of a package with one server for all of them, which use is called with before, and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(kubetest.Main(m, func(s *apiserver.Server) { server = s })) }
func Main(m *testing.M, use func(*apiserver.Server), options ...Option) int {
	s, err := start(context.Background(), options...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop()
	use(s)
	return m.Run()
}

// CRDs returns the files of the repository's CRDs.
func CRDs(t testing.TB) []string {
	t.Helper()
	_, root, err := apiserver.Find()
	if err != nil {
		t.Fatal(err)
	}
	files, err := crds(root)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func crds(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "operator", "crds", "*.yaml"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("find CRDs: no files in %s", filepath.Join(root, "operator", "crds"))
	}
	return files, err
}

func start(ctx context.Context, options ...Option) (*apiserver.Server, error) {
	bin, root, err := apiserver.Find()
	if err != nil {
		return nil, err
	}
	cfg := apiserver.Config{Bin: bin}
	if cfg.CRDs, err = crds(root); err != nil {
		return nil, err
	}
	for _, option := range options {
		option(&cfg)
	}
	return apiserver.Start(ctx, cfg)
}
