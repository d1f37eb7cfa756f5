package kube

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

const (
	serviceHead = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: ns}\n"
	policyHead  = "apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: ns}\n"
	peerHead    = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: ns}\n"
	entryHead   = "apiVersion: networking.istio.io/v1alpha3\nkind: ServiceEntry\nmetadata: {name: a, namespace: ns}\n"
)

func TestWhatIsWrongIsNamed(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"unknown field", serviceHead + "spec: {selektor: {a: b}}", `f.yaml:1: Service ns/a: spec.selektor: Service has no such field`},
		{"second document", "# c\n---\n\n" + serviceHead + "spec: {x: 1}", "f.yaml:4: Service ns/a: spec.x"},
		{"wrong type", serviceHead + "spec: {ports: 3}", "f.yaml:1: Service ns/a: spec.ports"},
		{"unknown message field", policyHead + "spec: {rules: [{from: [{source: {principal: [x]}}]}]}", "spec.rules[0].from[0].source.principal: Source has no such field"},
		{"unknown enum", policyHead + "spec: {action: BLOCK}", `spec.action: "BLOCK" is not one of ALLOW, DENY, AUDIT, CUSTOM`},
		{"not yaml", "a: [", "f.yaml:1: not valid YAML"},
		{"no kind", "a: b", "apiVersion and kind are required"},
		{"no name", "apiVersion: v1\nkind: Pod\n", "metadata.name: a name is required"},
		{"unknown kind", "apiVersion: x/v1\nkind: Foo\nmetadata: {name: a}", "not a kind the mesh reads"},
		{"list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {x: 1}}]", "items[0].spec.x"},
		{"selector and targetRefs", policyHead + "spec: {selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: x}]}", "only one of selector"},
		{"bad block", policyHead + "spec: {rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}", "ipBlocks[0]"},
		{"bad port", policyHead + "spec: {rules: [{to: [{operation: {ports: ['70000']}}]}]}", "ports[0]"},
		{"ports without selector", peerHead + "spec: {portLevelMtls: {8080: {mode: STRICT}}}", "spec.portLevelMtls: needs a selector"},
		{"no hosts", entryHead + "spec: {ports: [{number: 1, name: a}]}", "spec.hosts"},
		{"no ports", entryHead + "spec: {hosts: [a.b]}", "spec.ports"},
		{"wildcard by DNS", entryHead + "spec: {hosts: ['*.b'], ports: [{number: 1, name: a}], resolution: DNS}", "cannot be resolved by DNS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objs, errs := Decode("f.yaml", []byte(c.in))
			for _, o := range objs {
				errs = append(errs, Validate(o.Object)...)
			}
			if len(errs) == 0 {
				t.Fatal("nothing wrong")
			}
			if !strings.Contains(errs[0].Error(), c.want) {
				t.Errorf("%s\nwant %s", errs[0].Error(), c.want)
			}
		})
	}
}

func TestVersionsBecomeOne(t *testing.T) {
	objs, errs := Decode("f.yaml", []byte(policyHead+"spec: {action: DENY}\n---\n"+entryHead+"spec: {hosts: [a.b]}\n"))
	if len(errs) != 0 || len(objs) != 2 || objs[0].GVK != AuthorizationPolicyGVK() || objs[1].GVK != ServiceEntryGVK() {
		t.Fatalf("%v %v", objs, errs)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{serviceHead, policyHead + "spec: {action: DENY}", peerHead, entryHead, "a: [", "---\n---\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, _ := Decode("f.yaml", data)
		for _, o := range objs {
			if o.Object.GetName() == "" && o.Object.GetGenerateName() == "" {
				t.Error("an object without a name")
			}
			Validate(o.Object)
		}
	})
}

// recorder is a Sink that keeps the current objects.
type recorder struct {
	mu      sync.Mutex
	objects map[string]Object
	synced  bool
}

func (r *recorder) Apply(gvk schema.GroupVersionKind, upserts []Object, deletes []types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range upserts {
		r.objects[gvk.Kind+" "+NameOf(o).String()] = o
	}
	for _, d := range deletes {
		delete(r.objects, gvk.Kind+" "+d.String())
	}
}

func (r *recorder) Synced() { r.mu.Lock(); defer r.mu.Unlock(); r.synced = true }

func (r *recorder) label(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.objects[key]; o != nil {
		return "v" + o.GetLabels()["v"]
	}
	return ""
}

func object(name, version string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", labels: {v: '" + version + "'}}\n"
}

func TestFileSource(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".tmp", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
	}
	put("a.yaml", object("a", "1"))
	put("..2024/m.yaml", object("m", "1"))
	if err := os.Symlink("..2024", filepath.Join(dir, "mounted")); err != nil {
		t.Fatal(err)
	}
	r := &recorder{objects: map[string]Object{}}
	s := NewFileSource(dir, slog.New(slog.DiscardHandler), nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, r) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	expect := func(what, name, want string) {
		t.Helper()
		wait.Until(t, time.Minute, what+": "+name+" is "+want, func() bool { return r.label("Service default/"+name) == want }, func() string {
			return fmt.Sprintf("it is %q; errors %v", r.label("Service default/"+name), s.Errors())
		})
	}
	expect("at the start", "a", "v1")
	expect("symlinked directory", "m", "v1")
	put("a.yaml", object("a", "2"))
	expect("atomic rename", "a", "v2")
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(object("a", "3")), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("written in place", "a", "v3")
	put("sub/deep/b.yaml", object("b", "1"))
	expect("new subdirectory", "b", "v1")
	put("a.yaml", object("a", "4")+"spec: {nonsense: 1}\n---\n"+object("c", "1"))
	expect("beside a bad object", "c", "v1")
	expect("bad object", "a", "v3")
	put("a.yaml", "{{{")
	put("z.yaml", object("z", "1"))
	expect("after a broken file", "z", "v1")
	expect("broken file", "a", "v3")
	expect("broken file", "c", "v1")
	put("0.yaml", object("z", "0"))
	expect("the first of two files", "z", "v0")
	wait.Until(t, time.Minute, "the duplicate is reported", func() bool {
		errs := s.Errors()
		return len(errs) > 0 && strings.Contains(errs[len(errs)-1].Reason, "path sorts first")
	}, func() string { return fmt.Sprint(s.Errors()) })
	os.Remove(filepath.Join(dir, "0.yaml"))
	expect("the first removed", "z", "v1")
	os.RemoveAll(filepath.Join(dir, "sub"))
	expect("directory removed", "b", "")
	put("..2025/m.yaml", object("m", "2"))
	if err := os.Symlink("..2025", filepath.Join(dir, "..tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "mounted")); err != nil {
		t.Fatal(err)
	}
	expect("symlink swapped", "m", "v2")
}
