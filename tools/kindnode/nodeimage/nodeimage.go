package nodeimage

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cache"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/gobin"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/rootfs"
)

// recipe changes when an image made of the same inputs would come out differently.
const recipe = "nodeimage 2"

//go:embed default-cni.yaml
var defaultCNI string

//go:embed default-storage.yaml
var defaultStorage string

// Maker makes node images on a docker daemon.
type Maker struct {
	Repo       string
	Cache      cache.Cache
	DockerHost string // "" is the client's default
	Mirror     string // of Debian
	Log        *slog.Logger
}

// Make gives the name of the node image, making it when the daemon has it not.
func (m Maker) Make(ctx context.Context) (string, error) {
	builder := gobin.Builder{Repo: m.Repo, Cache: m.Cache, Log: m.Log}
	programs := map[string]string{}
	key := cache.NewKey(recipe, gobin.KubernetesVersion, defaultCNI, defaultStorage)
	for _, set := range gobin.All() {
		built, err := builder.Build(ctx, set, nil)
		if err != nil {
			return "", err
		}
		for _, name := range set.Programs() {
			programs[name] = built[name]
			key.Add(filepath.Base(filepath.Dir(built[name]))) // the name of the cached folder has the content's hash
		}
	}
	kindFiles, err := m.kindFiles(ctx)
	if err != nil {
		return "", err
	}
	root, rootKey, err := rootfs.Maker{Cache: m.Cache, Mirror: m.Mirror, Log: m.Log}.Make(ctx, kindFiles)
	if err != nil {
		return "", err
	}
	sum, err := key.Add(rootKey).Sum()
	if err != nil {
		return "", err
	}
	image := "isthmus/kindnode:" + gobin.KubernetesVersion + "-" + sum
	if m.docker(ctx, nil, "image", "inspect", image) == nil {
		return image, nil
	}
	start := time.Now()
	m.Log.Info("making the node image", "image", image)
	if err := m.build(ctx, image, root, programs); err != nil {
		return "", fmt.Errorf("make node image: %w", err)
	}
	m.Log.Info("made the node image", "took", time.Since(start).Round(time.Second/10))
	return image, nil
}

// kindFiles is the folder with the files of kind's base image, in the module that this program itself is built from.
func (m Maker) kindFiles(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind")
	cmd.Dir = filepath.Join(m.Repo, "tools")
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of kind: %w", err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", errors.New("the sources of kind are not in the module cache: run go mod download sigs.k8s.io/kind in tools")
	}
	return filepath.Join(dir, "images/base/files"), nil
}

func (m Maker) build(ctx context.Context, image, root string, programs map[string]string) error {
	tmp, err := os.MkdirTemp(m.Cache.Root, ".node-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	archives, err := m.archives(ctx, tmp, root, programs)
	if err != nil {
		return err
	}
	base := image + "-base"
	if err := m.importRoot(ctx, root, base); err != nil {
		return err
	}
	name := "kindnode-build-" + image[len(image)-16:]
	// The stop signal of the container becomes that of the image: systemd ends on it, and docker's commit has no option.
	err = m.docker(ctx, nil, "run", "-d", "--entrypoint=sleep", "--stop-signal=SIGRTMIN+3", "--name="+name,
		"--network=none", "--security-opt", "seccomp=unconfined", base, "infinity")
	if err == nil {
		err = m.fill(ctx, name, image, programs, archives)
	}
	// Even when the context ended: a container left over would block the next build by its name.
	cleanup := context.WithoutCancel(ctx)
	return errors.Join(err, m.docker(cleanup, nil, "rm", "-f", "-v", name), m.docker(cleanup, nil, "rmi", base))
}

func (m Maker) archives(ctx context.Context, tmp, root string, programs map[string]string) ([]string, error) {
	refs, err := wantedImages(ctx, programs["kubeadm"])
	if err != nil {
		return nil, err
	}
	sandbox, err := readSandbox(root)
	if err != nil {
		return nil, err
	}
	tools, err := rootfs.NetworkTools(ctx, root)
	if err != nil {
		return nil, err
	}
	images, err := controlPlaneImages(refs, sandbox, programs, tools)
	if err != nil {
		return nil, err
	}
	return writeArchives(tmp, images)
}

func (m Maker) importRoot(ctx context.Context, root, base string) error {
	pack := exec.CommandContext(ctx, "tar", "-C", root, "--numeric-owner", "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "-cf", "-", ".")
	out, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pack.Start(); err != nil {
		return err
	}
	err = m.docker(ctx, out, "import", "-c", "ENV container=docker", "-c", `ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`, "-", base)
	return errors.Join(err, pack.Wait())
}

// fill follows what `kind build node-image` does in its build container.
func (m Maker) fill(ctx context.Context, container, image string, programs map[string]string, archives []string) error {
	for _, name := range []string{"kubelet", "kubeadm", "kubectl", "crictl"} {
		to := "/usr/bin/" + name
		if name == "crictl" {
			to = "/usr/local/bin/" + name
		}
		if err := m.docker(ctx, nil, "cp", programs[name], container+":"+to); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"/kind/version":                        gobin.KubernetesVersion,
		"/kind/manifests/default-cni.yaml":     strings.NewReplacer("KINDNETLITE_IMAGE", KindnetliteImage, "NETPOL_IMAGE", NetpolImage).Replace(defaultCNI),
		"/kind/manifests/default-storage.yaml": defaultStorage,
	} {
		write := `mkdir -p "$(dirname "$1")" && cat > "$1"`
		if err := m.docker(ctx, strings.NewReader(content), "exec", "-i", container, "sh", "-c", write, "sh", name); err != nil {
			return err
		}
	}
	start := `containerd >/tmp/containerd.log 2>&1 & for i in $(seq 100); do ctr version >/dev/null 2>&1 && exit 0; sleep 0.2; done; cat /tmp/containerd.log; exit 1`
	if err := m.docker(ctx, nil, "exec", container, "bash", "-c", start); err != nil {
		return fmt.Errorf("containerd in the build container: %w", err)
	}
	for _, a := range archives {
		if err := m.importArchive(ctx, container, a); err != nil {
			return err
		}
	}
	stop := `pkill -x containerd; for i in $(seq 100); do pgrep -x -r D,R,S containerd >/dev/null || exit 0; sleep 0.1; done; exit 1`
	if err := m.docker(ctx, nil, "exec", container, "bash", "-c", stop); err != nil {
		return err
	}
	return m.docker(ctx, nil, "commit",
		"--change", `ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`,
		"--change", "CMD []",
		container, image)
}

func (m Maker) importArchive(ctx context.Context, container, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return m.docker(ctx, f, "exec", "-i", container, "ctr", "--namespace=k8s.io", "images", "import",
		"--label=io.cri-containerd.pinned=pinned", "--all-platforms", "--no-unpack", "--digests", "-")
}

func (m Maker) docker(ctx context.Context, stdin io.Reader, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin = stdin
	if m.DockerHost != "" {
		cmd.Env = append(cmd.Environ(), "DOCKER_HOST="+m.DockerHost)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
