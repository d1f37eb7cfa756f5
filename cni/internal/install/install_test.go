package install_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/install"
)

const foreign = `{"cniVersion":"1.0.0","name":"pods","disableCheck":true,"plugins":[{"type":"ptp","mtu":1500,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}]]}},{"type":"portmap"}]}`

func setUp(t *testing.T, files map[string]string) install.Options {
	t.Helper()
	dir := t.TempDir()
	o := install.Options{
		Source: filepath.Join(dir, "plugin"), BinDir: filepath.Join(dir, "bin"), NetDir: filepath.Join(dir, "net.d"),
		Socket: "/run/x.sock", ExcludeNamespaces: []string{"kube-system"},
	}
	if err := os.WriteFile(o.Source, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(o.NetDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, o, name, text)
	}
	return o
}

func write(t *testing.T, o install.Options, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.NetDir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, o install.Options, name string) (config map[string]any, types string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.NetDir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, p := range config["plugins"].([]any) {
		list = append(list, p.(map[string]any)["type"].(string))
	}
	return config, strings.Join(list, " ")
}

func TestChainKeepsWhatOthersWrote(t *testing.T) {
	o := setUp(t, map[string]string{"10-pods.conflist": foreign, "99-other.conflist": foreign, ".hidden": "x"})
	for i, want := range []bool{true, false} {
		if changed, err := install.Chain(o); err != nil || changed != want {
			t.Errorf("time %d: changed %t, %v", i, changed, err)
		}
	}
	config, types := read(t, o, "10-pods.conflist")
	ptp := config["plugins"].([]any)[0].(map[string]any)
	if types != "ptp portmap istio-cni" || config["disableCheck"] != true || ptp["mtu"] != 1500.0 || ptp["ipam"] == nil {
		t.Errorf("%s: %v", types, config)
	}
	if _, types := read(t, o, "99-other.conflist"); types != "ptp portmap" {
		t.Errorf("another configuration was changed: %s", types)
	}
	write(t, o, "10-pods.conflist", foreign) // the other plugin's installer comes again
	if changed, err := install.Chain(o); err != nil || !changed {
		t.Errorf("not repaired: %t, %v", changed, err)
	}
	o.Socket = "/run/y.sock"
	if changed, err := install.Chain(o); err != nil || !changed {
		t.Errorf("another socket: %t, %v", changed, err)
	}
	o.LogLevel = "debug"
	if changed, err := install.Chain(o); err != nil || !changed {
		t.Errorf("another level: %t, %v", changed, err)
	}
	config, _ = read(t, o, "10-pods.conflist")
	if own := config["plugins"].([]any)[2].(map[string]any); own["plugin_log_level"] != "debug" {
		t.Errorf("the plugin's own: %v", own)
	}
	if _, types := read(t, o, "10-pods.conflist"); types != "ptp portmap istio-cni" {
		t.Errorf("chained twice: %s", types)
	}
	if err := install.Uninstall(o); err != nil {
		t.Fatal(err)
	}
	if _, types := read(t, o, "10-pods.conflist"); types != "ptp portmap" {
		t.Errorf("after removal: %s", types)
	}
}

func TestASinglePluginBecomesAList(t *testing.T) {
	o := setUp(t, map[string]string{"10-net.conf": `{"cniVersion":"0.4.0","name":"n","type":"ptp"}`})
	if _, err := install.Chain(o); err != nil {
		t.Fatal(err)
	}
	if config, types := read(t, o, "10-net.conflist"); types != "ptp istio-cni" || config["name"] != "n" || config["cniVersion"] != "0.4.0" {
		t.Errorf("%s: %v", types, config)
	}
	if _, err := os.Stat(filepath.Join(o.NetDir, "10-net.conf")); !os.IsNotExist(err) {
		t.Errorf("the single plugin's file, which runtimes take first, is still there: %v", err)
	}
	if changed, err := install.Chain(o); err != nil || changed {
		t.Errorf("a second time: changed %t, %v", changed, err)
	}
}

func TestBrokenConfigurationsAreLeftAlone(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"plugins":7}`} {
		o := setUp(t, map[string]string{"10-pods.conflist": text})
		if _, err := install.Chain(o); err == nil || !strings.Contains(err.Error(), "10-pods.conflist") {
			t.Errorf("%q: %v", text, err)
		}
		if now, _ := os.ReadFile(filepath.Join(o.NetDir, "10-pods.conflist")); string(now) != text {
			t.Errorf("%q became %q", text, now)
		}
	}
	if _, err := install.Chain(setUp(t, nil)); !errors.Is(err, install.ErrNoNetwork) {
		t.Errorf("without a network: %v", err)
	}
}

func TestBinary(t *testing.T) {
	o := setUp(t, nil)
	for range 2 {
		if err := install.Binary(o); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(o.BinDir, "istio-cni"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}
