package dump_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
)

var update = flag.Bool("update", false, "write the golden files")

// now is when the dumps in testdata were taken; their certificates live for a day.
func now() time.Time { return time.Date(2026, 11, 21, 12, 40, 0, 0, time.UTC) }

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func envoy(t *testing.T, name string) *dump.Envoy {
	t.Helper()
	e, err := dump.ReadEnvoy(read(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func ztunnel(t *testing.T) *dump.Ztunnel {
	t.Helper()
	z, err := dump.ReadZtunnel(read(t, "ztunnel.json"))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// golden compares with testdata/name, which -update writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(read(t, name)); got != want {
		t.Errorf("%s differs (go test -update writes it):\n%s\nwant:\n%s", path, got, want)
	}
}

func text(t *testing.T, tables ...*dump.Table) string {
	t.Helper()
	var out bytes.Buffer
	for i, table := range tables {
		if i > 0 {
			out.WriteByte('\n')
		}
		if err := table.Write(&out, true); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func asYAML(t *testing.T, v any) string {
	t.Helper()
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestProxies: the tables of a waypoint of ours, and of a gateway that is an Envoy.
func TestProxies(t *testing.T) {
	t.Parallel()
	all := dump.ListenerFilter{Verbose: true}
	for _, name := range []string{"waypoint", "envoy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := envoy(t, name+".json")
			if got := e.IsWaypoint(); got != (name == "waypoint") {
				t.Errorf("IsWaypoint %t", got)
			}
			fromDump := e.EndpointTable(dump.EndpointFilter{})
			if err := e.ReadClusters(read(t, name+"-clusters.json")); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".golden", text(t,
				e.ClusterTable(dump.ClusterFilter{}), e.ListenerTable(all), e.WaypointTable(all), e.ListenerTable(dump.ListenerFilter{}),
				e.RouteTable(dump.RouteFilter{Verbose: true}), e.RouteTable(dump.RouteFilter{}), fromDump, e.EndpointTable(dump.EndpointFilter{}),
				e.SecretTable(now()), e.BootstrapTable(),
			))
		})
	}
}

// TestRoute: a route configuration whole, in the names that people write.
func TestRoute(t *testing.T) {
	t.Parallel()
	e := envoy(t, "waypoint.json")
	golden(t, "waypoint-route.golden.yaml", asYAML(t, e.Routes(dump.RouteFilter{Name: "inbound-vip|9080|http|reviews.inspect.svc.cluster.local"})))
	e = envoy(t, "envoy.json")
	got := asYAML(t, e.Clusters(dump.ClusterFilter{FQDN: "productpage", Subset: "", Port: 9080, Direction: "outbound"}))
	for _, want := range []string{"snake_case_of_somebody: x", "some_key: kept", "lbPolicy: LEAST_REQUEST", "- connectTimeout: 10s"} {
		if !strings.Contains(got, want) {
			t.Errorf("clusters lack %q:\n%s", want, got)
		}
	}
	if got = asYAML(t, e.Routes(dump.RouteFilter{Name: "http.8080"})); !strings.Contains(got, "my_key: 1") || !strings.Contains(got, "envoy.filters.http.my_filter:") {
		t.Errorf("names of others are changed:\n%s", got)
	}
}

// TestFilters: what is meant is shown, nothing else.
func TestFilters(t *testing.T) {
	t.Parallel()
	w, e := envoy(t, "waypoint.json"), envoy(t, "envoy.json")
	if err := e.ReadClusters(read(t, "envoy-clusters.json")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		table *dump.Table
		whole []any
		want  int
	}{
		{"no outbound at a waypoint", w.ClusterTable(dump.ClusterFilter{Direction: "outbound"}), w.Clusters(dump.ClusterFilter{Direction: "outbound"}), 0},
		{"inbound is inbound-vip too", w.ClusterTable(dump.ClusterFilter{Direction: "inbound"}), w.Clusters(dump.ClusterFilter{Direction: "inbound"}), 4},
		{"subset", w.ClusterTable(dump.ClusterFilter{Subset: "v2"}), w.Clusters(dump.ClusterFilter{Subset: "v2"}), 1},
		{"port", e.ClusterTable(dump.ClusterFilter{Port: 443}), e.Clusters(dump.ClusterFilter{Port: 443}), 1},
		{"listener port", e.ListenerTable(dump.ListenerFilter{Port: 8080, Verbose: true}), e.Listeners(dump.ListenerFilter{Port: 8080}), 1},
		{"listener address", e.ListenerTable(dump.ListenerFilter{Address: "::", Verbose: true}), e.Listeners(dump.ListenerFilter{Address: "::"}), 1},
		{"listener type", e.ListenerTable(dump.ListenerFilter{Type: "udp"}), e.Listeners(dump.ListenerFilter{Type: "UDP"}), 1},
		{"route name", e.RouteTable(dump.RouteFilter{Name: "block_all", Verbose: true}), e.Routes(dump.RouteFilter{Name: "block_all"}), 1},
		{"endpoint address", e.EndpointTable(dump.EndpointFilter{Address: "10.0.0.9"}), e.Endpoints(dump.EndpointFilter{Address: "10.0.0.9"}), 1},
		{"endpoint status", e.EndpointTable(dump.EndpointFilter{Status: "unhealthy"}), e.Endpoints(dump.EndpointFilter{Status: "unhealthy"}), 1},
		{"endpoint cluster", e.EndpointTable(dump.EndpointFilter{Cluster: "none"}), e.Endpoints(dump.EndpointFilter{Cluster: "none"}), 0},
		{"endpoint port", e.EndpointTable(dump.EndpointFilter{Port: 80}), e.Endpoints(dump.EndpointFilter{Port: 80}), 0},
	} {
		if len(c.table.Rows) != c.want || len(c.whole) != c.want {
			t.Errorf("%s: %d rows and %d whole, want %d: %v", c.name, len(c.table.Rows), len(c.whole), c.want, c.table.Rows)
		}
	}
}

// TestNoSecrets: whatever a proxy shows, neither keys nor passwords are printed.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	source := string(read(t, "envoy.json"))
	secrets := []string{"bm90IGEga2V5", "s3cret", "czNjcmV0", "PRIVATE KEY", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t"}
	for _, secret := range secrets {
		if !strings.Contains(source, secret) {
			t.Errorf("the dump lacks %q: this test would show nothing", secret)
		}
	}
	e := envoy(t, "envoy.json")
	bootstrap, err := e.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	for name, shown := range map[string]any{
		"whole": e.Whole(), "bootstrap": bootstrap, "secrets": e.Secrets(), "clusters": e.Clusters(dump.ClusterFilter{}),
	} {
		out, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if bytes.Contains(out, []byte(secret)) {
				t.Errorf("%s shows %q:\n%s", name, secret, out)
			}
		}
		if name == "whole" && !bytes.Contains(out, []byte("/etc/certs/key.pem")) {
			t.Error("where a key is stored is no secret")
		}
	}
}

// TestZtunnel: the tables of a node proxy.
func TestZtunnel(t *testing.T) {
	t.Parallel()
	z := ztunnel(t)
	golden(t, "ztunnel.golden", text(t,
		z.WorkloadTable(dump.WorkloadFilter{}), z.ServiceTable(""), z.PolicyTable(""), z.CertificateTable(now()),
		z.ConnectionTable(dump.ConnectionFilter{}), z.ConnectionTable(dump.ConnectionFilter{Raw: true, Direction: "outbound"}),
	))
	for name, c := range map[string]struct{ got, want int }{
		"namespace":  {len(z.Workloads(dump.WorkloadFilter{Namespace: "default"})), 1},
		"address":    {len(z.Workloads(dump.WorkloadFilter{Address: "172.18.0.3"})), 1},
		"node":       {len(z.Workloads(dump.WorkloadFilter{Node: "isthmus-worker"})), 1},
		"services":   {len(z.Services("inspect")), 2},
		"policies":   {len(z.Policies("none")), 0},
		"no pods":    {len(z.Connections(dump.ConnectionFilter{Namespace: "none"})), 0},
		"pods":       {len(z.Connections(dump.ConnectionFilter{Namespace: "inspect"})), 3},
		"identities": {len(z.Certificates()), 2},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", name, c.got, c.want)
		}
	}
	other := ztunnel(t)
	z.Merge(other)
	if got := len(z.Certificates()); got != 4 {
		t.Errorf("%d certificates of two nodes, want 4", got)
	}
}

// BenchmarkWorkloads is istioctl ztunnel-config workload where there are many.
func BenchmarkWorkloads(b *testing.B) {
	const many = 5000
	var data bytes.Buffer
	data.WriteString(`{"workloads":[`)
	for i := range many {
		fmt.Fprintf(&data, `{"uid":"u%d","name":"pod-%d","namespace":"n","workloadIps":["10.%d.%d.1"],"protocol":"HBONE","waypoint":{"destination":"n/w.n.svc"}},`, i, i, i/256, i%256)
	}
	data.WriteString(`{}],"services":[`)
	for i := range many {
		fmt.Fprintf(&data, `{"name":"s%d","namespace":"n","hostname":"s%d.n.svc","vips":["/10.96.%d.%d"]},`, i, i, i/256, i%256)
	}
	data.WriteString(`{"name":"w","hostname":"w.n.svc","namespace":"n"}]}`)
	for b.Loop() {
		z, err := dump.ReadZtunnel(data.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		if rows := z.WorkloadTable(dump.WorkloadFilter{Namespace: "n"}).Rows; len(rows) != many || rows[0][4] != "w" {
			b.Fatalf("%d rows, the first %v", len(rows), rows[0])
		}
	}
}

// TestSync: how far proxies have come, from our control plane and from Istio's.
func TestSync(t *testing.T) {
	t.Parallel()
	all, err := dump.ReadSync(read(t, "syncz.json"), "istiod-a")
	if err != nil {
		t.Fatal(err)
	}
	more, err := dump.ReadSync(read(t, "syncz-istio.json"), "istiod-b")
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, more...)
	// The ages are those at one o'clock.
	at := time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC)
	golden(t, "syncz.golden", text(t, dump.SyncTable(all), dump.SyncTypeTable(all, at))+"\n"+strings.Join(dump.Refusals(all), "\n")+"\n")
}

// TestCompare: what is the same is, whoever wrote it; what differs is shown as a diff.
func TestCompare(t *testing.T) {
	t.Parallel()
	// Both are of one control plane and one Envoy, at the same time.
	synced := envoy(t, "synced-envoy.json")
	for _, pair := range [][2]*dump.Envoy{{envoy(t, "waypoint.json"), envoy(t, "waypoint.json")}, {envoy(t, "synced-istiod.json"), synced}} {
		for _, d := range dump.Compare(pair[0], pair[1]) {
			if len(d.Lines) > 0 {
				t.Errorf("%s differ:\n%s", d.Section, strings.Join(d.Lines, "\n"))
			}
		}
	}
	if got := synced.RoutesLoaded(); got.Year() != 2026 {
		t.Errorf("routes loaded at %s", got)
	}
	changed := string(read(t, "synced-envoy.json"))
	for _, change := range [][2]string{{`"weight": 90`, `"weight": 80`}, {`"name": "encap"`, `"name": "other"`}, {`"max_connections": 11`, `"max_connections": 12`}} {
		if !strings.Contains(changed, change[0]) {
			t.Fatalf("no %s in the dump", change[0])
		}
		changed = strings.Replace(changed, change[0], change[1], 1)
	}
	have, err := dump.ReadEnvoy([]byte(changed))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, d := range dump.Compare(envoy(t, "synced-istiod.json"), have) {
		fmt.Fprintf(&got, "%s:\n%s\n", d.Section, strings.Join(d.Lines, "\n"))
	}
	golden(t, "compare.golden", got.String())
	refused := envoy(t, "envoy.json").Refusals()
	if len(refused) != 1 || refused[0] != (dump.Refusal{Type: "LDS", Name: "0.0.0.0_8080", Details: "filter_chains[0]: there is no such filter"}) {
		t.Errorf("refusals %v", refused)
	}
}

// TestWrongFiles: what is no dump is said to be none, and what it is.
func TestWrongFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ data, envoy, ztunnel string }{
		{"", "not JSON", "not JSON"},
		{"no: yaml", "not JSON", "not JSON"},
		{`{"configs": []} more`, "something after", "something after"},
		{`{}`, "no field configs", "no field workloads"},
		{`[]`, "no field configs", "no field workloads"},
		{`{"configs": []}`, "", "istioctl proxy-config"},
		{`{"workloads": []}`, "istioctl ztunnel-config", ""},
	} {
		_, err := dump.ReadEnvoy([]byte(c.data))
		check(t, "envoy "+c.data, err, c.envoy)
		_, err = dump.ReadZtunnel([]byte(c.data))
		check(t, "ztunnel "+c.data, err, c.ztunnel)
	}
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: error %v, want %q in it", name, err, want)
	}
}

// FuzzRead: no file brings the program down.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"configs":[{"@type":"ListenersConfigDump","dynamic_listeners":[{"active_state":{"listener":{"name":"x","filter_chains":[1,null,{"filters":{}}]}}}]}]}`))
	f.Add([]byte(`{"workloads":{"a":1},"services":[null],"certificates":[{"state":{}}],"workloadState":{"u":[]}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if e, err := dump.ReadEnvoy(data); err == nil {
			e.ClusterTable(dump.ClusterFilter{})
			e.ListenerTable(dump.ListenerFilter{Verbose: true})
			e.WaypointTable(dump.ListenerFilter{})
			e.RouteTable(dump.RouteFilter{Verbose: true})
			e.EndpointTable(dump.EndpointFilter{})
			e.SecretTable(now())
			e.Whole()
		}
		if z, err := dump.ReadZtunnel(data); err == nil {
			z.WorkloadTable(dump.WorkloadFilter{})
			z.ServiceTable("")
			z.CertificateTable(now())
			z.ConnectionTable(dump.ConnectionFilter{})
		}
		if all, err := dump.ReadSync(data, ""); err == nil {
			dump.SyncTypeTable(all, now())
		}
	})
}
