package proxy

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

// transport of the tunnels in a run of all tests; it changes only between runs.
var transport hbone.Transport

// transports runs all tests once over each.
type transports struct{ m *testing.M }

func (t transports) Run() int {
	all := carriers()
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		all = all[:1] // it makes no difference there
	}
	code := 0
	for _, transport = range all {
		if failed := t.m.Run(); failed != 0 {
			fmt.Fprintln(os.Stderr, "failed over", transport)
			code = failed
		}
	}
	return code
}

func TestMain(m *testing.M) { os.Exit(leak.Main(transports{m})) }
