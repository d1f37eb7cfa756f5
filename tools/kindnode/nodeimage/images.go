// Package nodeimage makes the image of a kind node: the root file system, the programs of Kubernetes, and the images of
// the control plane already in the node's containerd, in kind's own layout.
package nodeimage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/archive"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/gobin"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/rootfs"
)

// KindnetliteImage and NetpolImage are the names of the network daemons' images in a node.
const (
	KindnetliteImage = "isthmus.local/kindnetlite:node"
	NetpolImage      = "isthmus.local/netpol:node"
)

// path is the environment of the control plane's images: kubeadm's manifests use bare command names.
const path = "PATH=" + searchPath

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// controlPlaneImages gives the images that kubeadm and kind want in a node, made of the programs (by name) and the
// network tools.
func controlPlaneImages(refs []string, sandbox string, programs map[string]string, tools []archive.File) ([]archive.Image, error) {
	images := []archive.Image{
		{
			Refs: []string{sandbox}, Entrypoint: []string{"/pause"},
			Files: []archive.File{{Path: "/pause", Source: programs["pause"]}},
		},
		{
			Refs: []string{KindnetliteImage}, Entrypoint: []string{"/usr/local/bin/kindnetlite"}, Env: []string{path},
			Files: append([]archive.File{{Path: "/usr/local/bin/kindnetlite", Source: programs["kindnetlite"]}}, tools...),
		},
		{
			Refs: []string{NetpolImage}, Entrypoint: []string{"/usr/local/bin/netpol"}, Env: []string{"PATH=" + rootfs.LegacyDir + ":" + searchPath},
			Files: append([]archive.File{{Path: "/usr/local/bin/netpol", Source: programs["netpol"]}}, tools...),
		},
	}
	for _, ref := range refs {
		name := imageName(ref)
		if name == "pause" {
			images[0].Refs = appendNew(images[0].Refs, ref)
			continue
		}
		program, ok := programs[name]
		if !ok {
			return nil, fmt.Errorf("kubeadm wants the image %s, for which there is no program", ref)
		}
		at := "/usr/local/bin/" + name
		if name == "coredns" {
			at = "/coredns"
		}
		img := archive.Image{Refs: []string{ref}, Env: []string{path}, Entrypoint: []string{at}, Files: []archive.File{{Path: at, Source: program}}}
		if name == "kube-proxy" {
			img.Files = append(img.Files, tools...)
		}
		images = append(images, img)
	}
	return images, nil
}

// imageName is the last element of a reference, without its tag.
func imageName(ref string) string {
	name := ref[strings.LastIndex(ref, "/")+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// wantedImages asks kubeadm.
func wantedImages(ctx context.Context, kubeadm string) ([]string, error) {
	out, err := exec.CommandContext(ctx, kubeadm, "config", "images", "list", "--kubernetes-version", gobin.KubernetesVersion).Output()
	if err != nil {
		return nil, fmt.Errorf("kubeadm config images list: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// sandboxImage reads the name of the pause image out of containerd's configuration.
func sandboxImage(config string) (string, error) {
	for line := range strings.Lines(config) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "sandbox_image = "); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", fmt.Errorf("containerd's configuration names no sandbox_image")
}

func writeArchives(dir string, images []archive.Image) ([]string, error) {
	var out []string
	for _, img := range images {
		name := filepath.Join(dir, imageName(img.Refs[0])+".tar")
		if err := archive.WriteFile(name, img); err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, nil
}

func readSandbox(root string) (string, error) {
	config, err := os.ReadFile(filepath.Join(root, "etc/containerd/config.toml"))
	if err != nil {
		return "", err
	}
	return sandboxImage(string(config))
}
