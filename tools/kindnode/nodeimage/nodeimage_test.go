package nodeimage

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/archive"
)

func TestControlPlaneImages(t *testing.T) {
	programs := map[string]string{}
	for _, name := range []string{"pause", "kindnetlite", "netpol", "kube-proxy", "coredns", "etcd"} {
		programs[name] = "/bin/" + name
	}
	tools := []archive.File{{Path: "/usr/sbin/nft", Source: "/bin/nft"}}
	refs := []string{"r/kube-proxy:v1", "r/coredns/coredns:v2", "r/pause:3.10.1", "r/etcd:3-0"}
	images, err := controlPlaneImages(refs, "r/pause:3.10", programs, tools)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, img := range images {
		var files []string
		for _, f := range img.Files {
			files = append(files, f.Path)
		}
		got[strings.Join(img.Refs, " ")] = files
	}
	want := map[string][]string{
		"r/pause:3.10 r/pause:3.10.1": {"/pause"},
		KindnetliteImage:              {"/usr/local/bin/kindnetlite", "/usr/sbin/nft"},
		NetpolImage:                   {"/usr/local/bin/netpol", "/usr/sbin/nft"},
		"r/kube-proxy:v1":             {"/usr/local/bin/kube-proxy", "/usr/sbin/nft"},
		"r/coredns/coredns:v2":        {"/coredns"},
		"r/etcd:3-0":                  {"/usr/local/bin/etcd"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := controlPlaneImages([]string{"r/new:v1"}, "r/pause:3.10", programs, nil); err == nil {
		t.Error("an image without a program is accepted")
	}
}

func TestSandboxImage(t *testing.T) {
	got, err := sandboxImage("[plugins]\n  # fixed\n  sandbox_image = \"r/pause:3.10\"\n")
	if err != nil || got != "r/pause:3.10" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := sandboxImage(""); err == nil {
		t.Error("no error without the setting")
	}
}

// kind only fills in the pod subnet and the control plane's address where it finds these comments.
func TestDefaultCNIHasKindsComments(t *testing.T) {
	for _, want := range []string{"# would you kindly template this file\n", "# would you kindly patch this file\n", "{{ .PodSubnet }}", "KINDNETLITE_IMAGE"} {
		if !strings.Contains(defaultCNI, want) {
			t.Errorf("default-cni.yaml has no %q", want)
		}
	}
}
