package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

// Output is the form in which results are printed.
type Output struct{ Format string }

// The forms.
const (
	Short = "short"
	Text  = "table"
	JSON  = "json"
	YAML  = "yaml"
)

// Add adds the flag.
func (o *Output) Add(f *pflag.FlagSet, otherwise string) {
	f.StringVarP(&o.Format, "output", "o", otherwise, "json, yaml, or short (table)")
}

// Check refuses forms that there are not; before anything is asked.
func (o *Output) Check() error {
	switch o.Format {
	case Short, Text, JSON, YAML:
		return nil
	}
	return fmt.Errorf("--output %q is none of json, yaml, short, table", o.Format)
}

// IsTable is whether rows are printed.
func (o *Output) IsTable() bool { return o.Format == Short || o.Format == Text }

// Print prints the rows, or the whole.
func (o *Output) Print(w io.Writer, table *dump.Table, whole any) error {
	if o.IsTable() {
		return table.Write(w, true)
	}
	return Encode(w, o.Format, whole)
}

// Encode prints a value as JSON or YAML.
func Encode(w io.Writer, format string, value any) error {
	data, err := json.MarshalIndent(value, "", "    ")
	if err == nil && format == YAML {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, strings.TrimRight(string(data), "\n"))
	return err
}

// ReadFile reads a file, or the standard input for -.
func ReadFile(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}
