// Package rootfs makes the operating system of a node: Debian by debootstrap, with the files of kind's own base image
// and the changes that kind's Dockerfile makes.
package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cache"
)

// Suite is the Debian release: its systemd is the newest that boots on cgroup v1 without being forced.
const Suite = "bookworm"

// Packages is what is installed beyond Debian's minimal base: kind's own list, and what kind builds from source.
func Packages() []string {
	return []string{
		"systemd", "dbus", "conntrack", "iptables", "ipset", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod",
		"libseccomp2", "pigz", "bash", "ca-certificates", "curl", "jq", "procps", "containerd", "runc",
		"containernetworking-plugins", "socat", "ebtables", "tcpdump", "iputils-ping",
	}
}

// Maker makes root file systems.
type Maker struct {
	Cache  cache.Cache
	Mirror string // of Debian
	Log    *slog.Logger
}

// Make gives the folder of the root file system with kind's files, which are those of images/base/files of its module.
func (m Maker) Make(ctx context.Context, kindFiles string) (dir, key string, err error) {
	key, err = cache.NewKey("rootfs 3", Suite, runtime.GOARCH, strings.Join(Packages(), ",")).Tree(kindFiles).Sum()
	if err != nil {
		return "", "", err
	}
	dir, err = m.Cache.Make("rootfs", key, func(dir string) error {
		start := time.Now()
		m.Log.Info("installing Debian", "suite", Suite, "mirror", m.Mirror)
		if err := debootstrap(ctx, filepath.Join(dir, "debootstrap.log"), filepath.Join(dir, "root"), m.Mirror); err != nil {
			return err
		}
		defer func() { m.Log.Info("installed Debian", "took", time.Since(start).Round(time.Second/10)) }()
		return customize(ctx, filepath.Join(dir, "root"), kindFiles)
	})
	return filepath.Join(dir, "root"), key, err
}

func debootstrap(ctx context.Context, logFile, root, mirror string) error {
	logs, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer logs.Close()
	cmd := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "--include="+strings.Join(Packages(), ","), Suite, root, mirror)
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Run(); err != nil {
		tail, readErr := os.ReadFile(logFile)
		if readErr == nil && len(tail) > 2000 {
			tail = tail[len(tail)-2000:]
		}
		return fmt.Errorf("debootstrap %s from %s: %w\n%s", Suite, mirror, err, tail)
	}
	return nil
}

func customize(ctx context.Context, root, kindFiles string) error {
	for _, step := range []func() error{
		func() error { return overlay(root, kindFiles) },
		func() error { return trim(root) },
		func() error { return systemd(root) },
		func() error { return runtimeLinks(root) },
		func() error { return runtimeSpec(ctx, root) },
		func() error { return containerdConfig(filepath.Join(root, "etc/containerd/config.toml")) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// overlay copies kind's files; a module's archive loses execute bits, so scripts get theirs back by where they are.
func overlay(root, files string) error {
	return filepath.WalkDir(files, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(files, path)
		if err != nil {
			return err
		}
		to := filepath.Join(root, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(rel, "usr/local/bin/") || strings.HasPrefix(rel, "kind/bin/") {
			mode = 0o755
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(to, content, mode), os.Chmod(to, mode))
	})
}

// trim removes what a node never reads.
func trim(root string) error {
	return removeGlobs(root, "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*",
		"var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*.log", "etc/cni/net.d/*", "etc/hostname", "etc/machine-id", "etc/resolv.conf")
}

// systemd leaves only what a node needs to start.
func systemd(root string) error {
	err := removeGlobs(root,
		"lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
		"lib/systemd/system/multi-user.target.wants/*", "etc/systemd/system/*.wants/*",
		"lib/systemd/system/local-fs.target.wants/*", "lib/systemd/system/sockets.target.wants/*udev*",
		"lib/systemd/system/sockets.target.wants/*initctl*", "lib/systemd/system/basic.target.wants/*")
	if err != nil {
		return err
	}
	journald := filepath.Join(root, "etc/systemd/journald.conf")
	text, err := os.ReadFile(journald)
	if err != nil {
		return err
	}
	if err := os.WriteFile(journald, append(text, "ReadKMsg=no\n"...), 0o644); err != nil { //nolint:gosec // as Debian's
		return err
	}
	links := map[string]string{
		"sbin/init": "/usr/lib/systemd/systemd",
		// It would register things in binfmt_misc, which belongs to the whole machine.
		"etc/systemd/system/systemd-binfmt.service": "/dev/null",
	}
	for _, unit := range []string{"kubelet", "containerd", "undo-mount-hacks"} {
		links["etc/systemd/system/multi-user.target.wants/"+unit+".service"] = "/etc/systemd/system/" + unit + ".service"
	}
	return symlinks(root, links)
}

// runtimeLinks puts Debian's container runtime where kind's files expect their own.
func runtimeLinks(root string) error {
	links := map[string]string{}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		links["usr/local/bin/"+name] = "/usr/bin/" + name
	}
	plugins, err := filepath.Glob(filepath.Join(root, "usr/lib/cni/*"))
	if err != nil {
		return err
	}
	for _, p := range plugins {
		links["opt/cni/bin/"+filepath.Base(p)] = "/usr/lib/cni/" + filepath.Base(p)
	}
	return errors.Join(symlinks(root, links), os.MkdirAll(filepath.Join(root, "etc/kubernetes/manifests"), 0o755))
}

// runtimeSpec makes the specification that every container in a node starts from, as kind's Dockerfile does by jq.
func runtimeSpec(ctx context.Context, root string) error {
	out, err := exec.CommandContext(ctx, "chroot", root, "ctr", "oci", "spec").Output()
	if err != nil {
		return fmt.Errorf("ctr oci spec in %s: %w", root, err)
	}
	spec, err := editSpec(out)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "etc/containerd/cri-base.json"), spec, 0o644) //nolint:gosec // no secret
}

func editSpec(text []byte) ([]byte, error) {
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, fmt.Errorf("parse runtime specification: %w", err)
	}
	hooks, ok := spec["hooks"].(map[string]any)
	if !ok {
		hooks = map[string]any{}
		spec["hooks"] = hooks
	}
	list, _ := hooks["createContainer"].([]any)
	hooks["createContainer"] = append(list, map[string]any{"path": "/kind/bin/mount-product-files.sh"})
	if process, ok := spec["process"].(map[string]any); ok {
		delete(process, "rlimits")
	}
	return json.MarshalIndent(spec, "", "  ")
}

// containerdConfig makes containerd not lower the oom score of pods below its own, which takes CAP_SYS_RESOURCE;
// where that is there, the setting changes nothing that a test could see.
func containerdConfig(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const from, to = "restrict_oom_score_adj = false", "restrict_oom_score_adj = true"
	if !strings.Contains(string(text), from) {
		return fmt.Errorf("kind's containerd configuration has no %q any more: adapt package rootfs", from)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o644) //nolint:gosec // no secret
}

func removeGlobs(root string, patterns ...string) error {
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func symlinks(root string, links map[string]string) error {
	for name, target := range links {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.RemoveAll(at); err != nil {
			return err
		}
		if err := os.Symlink(target, at); err != nil {
			return err
		}
	}
	return nil
}
