package describe

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

var update = flag.Bool("update", false, "write the golden files")

func load(t *testing.T) *Mesh {
	t.Helper()
	data, err := os.ReadFile("testdata/mesh.yaml")
	if err != nil {
		t.Fatal(err)
	}
	decoded, problems := kube.Decode("mesh.yaml", data)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var objects []kube.Object
	for _, d := range decoded {
		objects = append(objects, d.Object)
	}
	m, err := New(simulate.Settings{}, objects)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestDescribe: what is said of pods and services in every state that there is, word for word.
func TestDescribe(t *testing.T) {
	t.Parallel()
	m := load(t)
	well := Node{Ztunnel: "ztunnel-1.istio-system", Ready: true, Asked: true, Knows: true, Protocol: "HBONE"}
	for name, describe := range map[string]func(*bytes.Buffer) error{
		"pod":         func(b *bytes.Buffer) error { return m.Pod(b, "shop", "reviews-v1", well, false) },
		"pod-l4":      func(b *bytes.Buffer) error { return m.Pod(b, "plain", "db", well, false) },
		"pod-outside": func(b *bytes.Buffer) error { return m.Pod(b, "outside", "lonely", Node{}, false) },
		"pod-ignored": func(b *bytes.Buffer) error { return m.Pod(b, "outside", "lonely", Node{}, true) },
		"pod-pending": func(b *bytes.Buffer) error { return m.Pod(b, "plain", "late", well, false) },
		"pod-host":    func(b *bytes.Buffer) error { return m.Pod(b, "plain", "host", well, false) },
		"no-ztunnel":  func(b *bytes.Buffer) error { return m.Pod(b, "plain", "db", Node{}, false) },
		"not-ready":   func(b *bytes.Buffer) error { return m.Pod(b, "plain", "db", Node{Ztunnel: "z"}, false) },
		"silent": func(b *bytes.Buffer) error {
			return m.Pod(b, "plain", "db", Node{Ztunnel: "z", Ready: true, Problem: "refused"}, false)
		},
		"unknown": func(b *bytes.Buffer) error {
			return m.Pod(b, "plain", "db", Node{Ztunnel: "z", Ready: true, Asked: true}, false)
		},
		"stale": func(b *bytes.Buffer) error {
			return m.Pod(b, "plain", "db", Node{Ztunnel: "z", Ready: true, Asked: true, Knows: true, Protocol: "TCP"}, false)
		},
		"service":        func(b *bytes.Buffer) error { return m.Service(b, "shop", "reviews") },
		"service-l4":     func(b *bytes.Buffer) error { return m.Service(b, "plain", "db") },
		"service-broken": func(b *bytes.Buffer) error { return m.Service(b, "plain", "lost") },
		"service-name":   func(b *bytes.Buffer) error { return m.Service(b, "plain", "elsewhere") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := describe(&out); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("%s differs (go test -update writes it):\n%s\nwant:\n%s", path, out.String(), want)
			}
		})
	}
}

// TestNotThere: what there is not is said, with what may be meant.
func TestNotThere(t *testing.T) {
	t.Parallel()
	m := load(t)
	var out bytes.Buffer
	if err := m.Service(&out, "shop", "review"); err == nil || !strings.Contains(err.Error(), "did you mean reviews.shop?") {
		t.Errorf("error %v", err)
	}
	if err := m.Pod(&out, "shop", "none", Node{}, false); err == nil {
		t.Error("no error of a pod that is not there")
	}
}
