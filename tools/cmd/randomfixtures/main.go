// Command randomfixtures writes fixtures of conformance-envoy that nobody has thought of: random objects that an API server takes, and
// requests that come near them. A fixture is the same for the same seed.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

func main() {
	dir := flag.String("dir", "out/random", "where the fixtures go")
	seed := flag.Uint64("seed", 1, "of the first fixture")
	count := flag.Int("count", 20, "how many, each with the next seed")
	flag.Parse()
	if err := run(*dir, *seed, *count); err != nil {
		fmt.Fprintln(os.Stderr, "randomfixtures:", err)
		os.Exit(1)
	}
}

func run(dir string, seed uint64, count int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range uint64(count) {
		text, err := fixture(seed + i)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("random-%05d.yaml", seed+i)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

type object = map[string]any

type list = []any

// fixture is one of the kinds, in turns.
func fixture(seed uint64) ([]byte, error) {
	g := generator{Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed}
	var objects []object
	var requests []object
	switch seed % 15 {
	case 0:
		objects, requests = g.waypointVirtualService()
	case 1:
		objects, requests = g.authorization()
	case 2:
		objects, requests = g.gatewayVirtualServices()
	case 3:
		objects, requests = g.httpRoutes("gateway")
	case 4:
		objects, requests = g.httpRoutes("waypoint")
	case 5:
		objects, requests = g.tokens()
	case 6:
		objects, requests = g.delegates()
	case 7:
		objects, requests = g.grpcRoutes("gateway")
	case 8:
		objects, requests = g.grpcRoutes("waypoint")
	case 9:
		objects, requests = g.destinationRules(true)
	case 10:
		objects, requests = g.destinationRules(false)
	case 11:
		objects, requests = g.connections()
	case 12:
		objects, requests = g.namespaces()
	case 13:
		objects, requests = g.serviceEntries(true)
	default:
		objects, requests = g.serviceEntries(false)
	}
	// Istio's own does not retry what was answered with 503 unless it is told to.
	retry := object{"attempts": 2, "retryOn": "connect-failure,refused-stream,unavailable,cancelled,503"}
	objects = append(objects, object{"requests": requests, "noGenerated": true, "mesh": object{"defaultHttpRetryPolicy": retry}})
	var out bytes.Buffer
	for i, o := range objects {
		if i > 0 {
			out.WriteString("\n---\n")
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			return nil, err
		}
		out.Write(bytes.TrimSpace(text))
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
