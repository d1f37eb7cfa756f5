package proxy

import (
	"os"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }
