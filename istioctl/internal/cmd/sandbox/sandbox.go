//go:build linux

// Package sandbox has the commands that run the mesh on this machine without a cluster.
//
// sandbox.go has what they share, up.go starts and ends, objects.go changes objects, look.go looks at them, run.go runs
// commands in pods.
package sandbox

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

// Main is the sandbox's supervisor, if the program was started as one; then handled is true.
func Main(args []string) (handled bool, exit int) { return sandbox.Main(args) }

// shared are the flags of every command.
type shared struct {
	name, stateDir, namespace string
}

// New returns the command and its subcommands.
func New() *cobra.Command {
	s := &shared{}
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run the mesh on this machine, without a cluster",
		Long: "Run the mesh on this machine, without a cluster: nodes and pods are Linux namespaces, images are local programs,\n" +
			"manifests are ordinary Kubernetes YAML. It needs root.",
		Example: "  istioctl sandbox up -f samples/bookinfo/platform/kube/bookinfo.yaml\n  istioctl sandbox status\n  istioctl sandbox down",
	}
	f := cmd.PersistentFlags()
	f.StringVar(&s.name, "name", "default", "name of the sandbox")
	f.StringVar(&s.stateDir, "state-dir", "", "directory of the sandbox's state, instead of one by its name")
	f.StringVarP(&s.namespace, "namespace", "n", "default", "namespace")
	cmd.AddCommand(up(s), down(s), status(s), apply(s), remove(s), get(s), label(s, "label"), label(s, "annotate"), scale(s), rollout(s), execute(s), logs(s))
	return cmd
}

func (s *shared) dir() string {
	if s.stateDir != "" {
		return s.stateDir
	}
	return sandbox.StateDir(s.name)
}

// called is how the sandbox is called in messages.
func (s *shared) called() string {
	if s.stateDir != "" {
		return "in " + s.stateDir
	}
	return s.name
}

func (s *shared) connect() (*sandbox.Client, error) { return sandbox.Connect(s.dir()) }

// input is one manifest.
type input struct {
	name string
	data []byte
}

// read returns the manifests of files, of the files in directories, and of standard input for "-".
func read(paths []string, stdin io.Reader) ([]input, error) {
	var out []input
	for _, path := range paths {
		if path == "-" {
			data, err := io.ReadAll(stdin)
			if err != nil {
				return nil, err
			}
			out = append(out, input{"stdin", data})
			continue
		}
		files, err := filesIn(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			out = append(out, input{file, data})
		}
	}
	return out, nil
}

// filesIn is the file itself, or the manifests in a directory, by name.
func filesIn(path string) ([]string, error) {
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		return nil, fmt.Errorf("%s: addresses are not fetched; download it and name the file", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			out = append(out, filepath.Join(path, e.Name()))
		}
	}
	return out, nil
}
