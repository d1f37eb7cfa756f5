package gateway

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

var (
	update = flag.Bool("update", false, "write the golden files anew")
	envoy  = flag.String("envoy", "", "a real Envoy, to judge every configuration of the golden files")
)

// TestGolden translates testdata/NAME.in.yaml, whose first lines say for whom, and compares with NAME.out.yaml:
//
//	# waypoint NAMESPACE/NAME HOST PORT
//	# gateway NAMESPACE label=value… [SERVICEPORT:TARGETPORT…]
//	# backends
//	# status
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("inputs: %v, %v", inputs, err)
	}
	for _, file := range inputs {
		name := strings.TrimSuffix(filepath.Base(file), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out, configs := render(t, name, data)
			for _, c := range configs {
				if err := c.ValidateAll(); err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
			}
			if *envoy != "" {
				validateByEnvoy(t, *envoy, configs)
			}
			golden := filepath.Join("testdata", name+".out.yaml")
			if *update {
				if err := os.WriteFile(golden, out, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			sameLines(t, golden, string(want), string(out))
		})
	}
}

func render(t *testing.T, name string, data []byte) ([]byte, []*routev3.RouteConfiguration) {
	t.Helper()
	w := decodeWorld(t, name, data)
	var out strings.Builder
	var configs []*routev3.RouteConfiguration
	section := func(title string, value any) {
		body, err := yaml.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "# %s\n---\n%s", title, body)
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(strings.TrimPrefix(line, "#"))
		if !strings.HasPrefix(line, "# ") {
			break
		}
		var problems []route.Problem
		var made []*routev3.RouteConfiguration
		switch words[0] {
		case "waypoint":
			port, err := strconv.ParseUint(words[3], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			in := w.waypointInput(words[1], words[2], uint32(port))
			config, found := WaypointRoutes(w, in)
			made, problems = []*routev3.RouteConfiguration{config}, found
			tcp, more := WaypointTCP(w, in)
			if len(tcp) > 1 || len(more) > 0 {
				section("tcp of "+line[2:len(line)-1], tcp)
			}
			problems = append(problems, more...)
		case "gateway":
			servers, routes, found := GatewayConfig(w, w.gatewayInput(words[1], words[2:]))
			section("servers of "+strings.TrimSpace(line[2:]), servers)
			made, problems = routes, found
		case "backends":
			section("backends", w.backends())
		case "status":
			section("status", w.statuses())
		default:
			continue
		}
		for _, c := range made {
			section(strings.TrimSpace(line[2:]), toJSON(t, c))
		}
		if len(problems) > 0 {
			section("problems of "+strings.TrimSpace(line[2:]), texts(problems))
		}
		configs = append(configs, made...)
	}
	return []byte(out.String()), configs
}

// sameLines names the first line that differs.
func sameLines(t *testing.T, file, want, got string) {
	t.Helper()
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(wants), len(gots)) {
		switch {
		case i >= len(wants):
			t.Fatalf("%s has %d lines, got more: %s", file, len(wants), gots[i])
		case i >= len(gots):
			t.Fatalf("%s:%d: want %s, got nothing", file, i+1, wants[i])
		case wants[i] != gots[i]:
			t.Fatalf("%s:%d: want %s, got %s", file, i+1, wants[i], gots[i])
		}
	}
}

func texts(problems []route.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, fmt.Sprintf("%s %s/%s %s: %s", p.Origin.Kind, p.Origin.Namespace, p.Origin.Name, p.Field, p.Message))
	}
	return out
}

func toJSON(t *testing.T, m proto.Message) any {
	t.Helper()
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// sortedValues gives a map's values by key.
func sortedValues[T any](m map[string]T) []T {
	out := make([]T, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
