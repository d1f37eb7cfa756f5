package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secret is what no command may show: what is planted into dumps, logs and objects.
var secret = regexp.MustCompile(`PRIVATE KEY|planted|hunter2|s3cret|czNjcmV0|bm90IGEga2V5|eyJhbGci|LS0tLS1CRUdJTiBFQ|UFJJVkFURSBLRVk`)

// output is what a command says, in one stream or the other.
func output(args ...string) string {
	var out bytes.Buffer
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(""))
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		out.WriteString(err.Error())
	}
	return out.String()
}

// TestNoSecrets: whatever looks at a proxy shows no private key, in no form.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	dumps := "../../internal/dump/testdata/"
	planted := filepath.Join(t.TempDir(), "planted.json")
	data, err := os.ReadFile(dumps + "ztunnel.json")
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"workloads"`), []byte(`"extra": {"private_key": "planted", "text": "-----BEGIN EC PRIVATE KEY-----\nplanted\n-----END EC PRIVATE KEY-----"}, "workloads"`), 1)
	if err := os.WriteFile(planted, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var commands [][]string
	for _, form := range []string{"short", "json", "yaml"} {
		for _, section := range []string{"cluster", "listener", "route", "endpoint", "bootstrap", "secret", "ecds", "all"} {
			commands = append(commands, []string{"proxy-config", section, "-f", dumps + "envoy.json", "-o", form})
		}
		for _, section := range []string{"workload", "service", "policy", "certificate", "connections", "all"} {
			commands = append(commands, []string{"ztunnel-config", section, "-f", planted, "-o", form})
		}
		commands = append(commands, []string{"x", "authz", "check", "-f", dumps + "envoy.json", "-o", form}, []string{"x", "authz", "check", "-f", planted, "-o", form})
	}
	for _, args := range commands {
		got := output(args...)
		if got == "" {
			t.Errorf("%s says nothing", strings.Join(args, " "))
		}
		if found := secret.FindString(got); found != "" {
			t.Errorf("%s shows %q", strings.Join(args, " "), found)
		}
	}
}

// TestReportWithoutSecrets: nor does the archive of a bug report have one.
func TestReportWithoutSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dumps := filepath.Join(dir, "dumps")
	if err := os.MkdirAll(dumps, 0o700); err != nil {
		t.Fatal(err)
	}
	// The waypoint answers as an Envoy does that shows its keys.
	for name, from := range map[string]string{
		"waypoint.json": "envoy.json", "waypoint-clusters.json": "envoy-clusters.json", "ztunnel.json": "ztunnel.json", "syncz.json": "syncz.json",
	} {
		data, err := os.ReadFile("../../internal/dump/testdata/" + from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dumps, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := serve(t, &apiServer{dumps: dumps, objects: map[string]map[string]any{}}, dir)
	said := output("bug-report", "--kubeconfig", kubeconfig, "--output-dir", dir, "--full-secrets", "--request-timeout", "20s")
	if !strings.Contains(said, "Saved as") {
		t.Fatal(said)
	}
	if found := secret.FindString(said); found != "" {
		t.Errorf("the command shows %q", found)
	}
	files := 0
	archive := open(t, filepath.Join(dir, "bug-report.tar.gz"))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files++
		if found := secret.FindString(string(data)); found != "" {
			t.Errorf("%s has %q", header.Name, found)
		}
	}
	if files < 10 {
		t.Errorf("only %d files", files)
	}
}

func open(t *testing.T, name string) *tar.Reader {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	return tar.NewReader(plain)
}
