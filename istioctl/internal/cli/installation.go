package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Installation are the flags that say what is installed.
type Installation struct {
	Files    []string
	Set      []string
	Revision string
	Charts   string
	Force    bool
}

// Add adds the flags.
func (i *Installation) Add(f *pflag.FlagSet) {
	f.StringSliceVarP(&i.Files, "filename", "f", nil, "IstioOperator file, - for the standard input; later ones count before earlier ones")
	f.StringArrayVarP(&i.Set, "set", "s", nil, "field of the IstioOperator's spec, as profile=ambient or values.global.hub=example.org/x; counts before files")
	f.StringVarP(&i.Revision, "revision", "r", "", "revision of the control plane")
	f.StringVarP(&i.Charts, "manifests", "d", "", "directory of charts to use instead of the built-in ones")
	f.BoolVar(&i.Force, "force", false, "go on in spite of values that no chart reads")
	// The older name of the flag.
	f.StringVar(&i.Charts, "charts", "", "as --manifests")
	_ = f.MarkHidden("charts")
}

// Read returns the installation that the flags and files ask for.
func (i *Installation) Read(stdin io.Reader) (*iop.Operator, error) {
	var files []iop.File
	for _, name := range i.Files {
		data, err := read(name, stdin)
		if err != nil {
			return nil, err
		}
		files = append(files, iop.File{Name: name, Data: data})
	}
	set := slices.Clone(i.Set)
	if i.Revision != "" {
		set = append(set, "revision="+i.Revision)
	}
	op, err := iop.Read(files, set)
	if err != nil {
		return nil, err
	}
	op.Spec.InstallPackagePath = cmp.Or(i.Charts, op.Spec.InstallPackagePath)
	return op, nil
}

func read(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return nil, fmt.Errorf("%s: addresses are not fetched; download it and name the file", name)
	}
	return os.ReadFile(name)
}

// RenderOptions returns what this program knows about images and versions.
func (i *Installation) RenderOptions(build telemetry.Build, g *Globals) render.Options {
	o := render.Options{Version: build.Version, Force: i.Force, Namespace: g.IstioNamespace}
	// A release installs its own images; what is built from a checkout installs those that were built beside it.
	if build.Version != "dev" {
		o.Tag = build.Version
	}
	return o
}
