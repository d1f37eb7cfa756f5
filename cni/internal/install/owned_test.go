package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/internal/install"
)

func configure(t *testing.T, o install.Options, want bool) {
	t.Helper()
	if changed, err := install.Configure(o); err != nil || changed != want {
		t.Errorf("changed %t, %v; want %t", changed, err, want)
	}
}

func TestAConfigurationOfItsOwnComesFirst(t *testing.T) {
	o := setUp(t, map[string]string{"10-pods.conflist": foreign})
	if err := install.Binary(o); err != nil {
		t.Fatal(err)
	}
	configure(t, o, true) // chained, as an installation before was
	o.Owned = true
	configure(t, o, true)
	configure(t, o, false)
	if _, types := read(t, o, install.DefaultOwned); types != "ptp portmap istio-cni" {
		t.Errorf("its own: %s", types)
	}
	if _, types := read(t, o, "10-pods.conflist"); types != "ptp portmap" {
		t.Errorf("the node's: %s", types)
	}
	if err := install.Validate(o); err != nil {
		t.Error(err)
	}
	write(t, o, "10-pods.conflist", strings.Replace(foreign, "1500", "1400", 1)) // the node's network changes
	configure(t, o, true)
	config, _ := read(t, o, install.DefaultOwned)
	if mtu := config["plugins"].([]any)[0].(map[string]any)["mtu"]; mtu != 1400.0 {
		t.Errorf("its own has not followed: %v", mtu)
	}
	if err := os.Remove(filepath.Join(o.NetDir, "10-pods.conflist")); err != nil { // the node starts, its network's installer comes later
		t.Fatal(err)
	}
	configure(t, o, false)
	if _, types := read(t, o, install.DefaultOwned); types != "ptp portmap istio-cni" {
		t.Errorf("its own, without the node's: %s", types)
	}
	write(t, o, "10-pods.conflist", foreign)
	configure(t, o, true)
	o.Owned = false
	configure(t, o, true)
	if _, err := os.Stat(filepath.Join(o.NetDir, install.DefaultOwned)); !os.IsNotExist(err) {
		t.Errorf("a configuration of its own is left: %v", err)
	}
	o.Owned = true
	configure(t, o, true)
	if err := install.Uninstall(o); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(o.NetDir)
	if _, types := read(t, o, "10-pods.conflist"); len(entries) != 1 || types != "ptp portmap" {
		t.Errorf("left: %v, %s", entries, types)
	}
	if _, err := os.Stat(filepath.Join(o.BinDir, install.PluginType)); !os.IsNotExist(err) {
		t.Errorf("the plugin is left: %v", err)
	}
}

func TestAConfigurationThatComesBeforeIsAnError(t *testing.T) {
	o := setUp(t, map[string]string{"00-multus.conflist": foreign})
	o.Owned = true
	if _, err := install.Configure(o); err == nil || !strings.Contains(err.Error(), "comes before") {
		t.Errorf("%v", err)
	}
	o.OwnedName = "00-a.conflist"
	configure(t, o, true)
}

func TestTheNamedConfiguration(t *testing.T) {
	o := setUp(t, map[string]string{"05-cilium.conflist": foreign, "10-pods.conf": `{"cniVersion":"0.4.0","name":"n","type":"ptp"}`})
	o.ConfName = "10-pods.conf"
	configure(t, o, true)
	configure(t, o, false)
	if _, types := read(t, o, "10-pods.conflist"); types != "ptp istio-cni" {
		t.Error(types)
	}
	if _, types := read(t, o, "05-cilium.conflist"); types != "ptp portmap" {
		t.Errorf("another one was changed: %s", types)
	}
}

func TestNotChained(t *testing.T) {
	o := setUp(t, map[string]string{"10-pods.conflist": foreign})
	o.Unchained = true
	configure(t, o, true)
	configure(t, o, false)
	data, err := os.ReadFile(filepath.Join(o.NetDir, install.DefaultUnchained))
	if err != nil || !strings.Contains(string(data), `"type":"istio-cni"`) {
		t.Errorf("%s, %v", data, err)
	}
	if err := install.Uninstall(o); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(o.NetDir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestValidate(t *testing.T) {
	o := setUp(t, map[string]string{"10-pods.conflist": foreign})
	if err := install.Validate(o); err == nil || !strings.Contains(err.Error(), "is not in") {
		t.Errorf("without a binary: %v", err)
	}
	if err := install.Binary(o); err != nil {
		t.Fatal(err)
	}
	if err := install.Validate(o); err == nil || !strings.Contains(err.Error(), "cni.exclusive=false") {
		t.Errorf("without a configuration: %v", err)
	}
	configure(t, o, true)
	if err := install.Validate(o); err != nil {
		t.Error(err)
	}
	write(t, o, "00-other.conflist", foreign)
	if err := install.Validate(o); err == nil || !strings.Contains(err.Error(), "00-other.conflist") {
		t.Errorf("another one comes first: %v", err)
	}
}
