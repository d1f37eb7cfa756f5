package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

func TestShown(t *testing.T) {
	dir := t.TempDir()
	s := &Supervisor{cfg: Config{StateDir: dir}}
	path := filepath.Join(dir, statusDir, "gateway.gateway.networking.k8s.io", "default", "w.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	text := `{"kind": "Gateway", "status": {"addresses": ["theirs"], "listeners": ["l"], "conditions": [
	  {"type": "Accepted", "status": "False", "message": "theirs"}, {"type": "Programmed", "status": "True", "message": "theirs"}, {"type": "ResolvedRefs", "status": "True"}]}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	objects, errs := manifest.Decode("test.yaml", []byte(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w}
status:
  addresses: [mine]
  conditions: [{type: Accepted, status: "True", message: mine}, {type: Programmed, status: "False", message: mine}, {type: Own, status: "True"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other}
`))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	got, err := s.shown(objects)
	if err != nil || len(got) != 2 || got[1]["status"] != nil {
		t.Fatalf("%v, %v", got, err)
	}
	status, err := json.Marshal(got[0]["status"])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"addresses":["mine"],"conditions":[{"message":"theirs","status":"False","type":"Accepted"},` +
		`{"message":"mine","status":"False","type":"Programmed"},{"status":"True","type":"ResolvedRefs"},{"status":"True","type":"Own"}],"listeners":["l"]}`
	if string(status) != want {
		t.Errorf("got  %s\nwant %s", status, want)
	}
}
