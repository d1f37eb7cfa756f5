package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/internal/debian"
	"github.com/isthmus-mesh/isthmus/tools/internal/rootfs"
)

// result is the line by which the machine says how a test ended.
const result = "ARM64TEST"

// machine runs the tests in an emulated machine.
func (o options) machine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	tree, kernel, err := o.system(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, directory := range o.packages {
		name := strings.ReplaceAll(directory, "/", "_")
		file := filepath.Join(o.out, name+".test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", o.tags, "-o", file, "./"+directory)
		cmd.Dir = o.root
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
		if problem, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the tests of %s: %w\n%s", directory, err, problem)
		}
		tree.Program("/tests/"+name+".test", file)
		if data := filepath.Join(o.root, directory, "testdata"); isDirectory(data) {
			if err := tree.Copy("/tests/"+name+"/testdata", data); err != nil {
				return err
			}
		}
		tree.Dir("/tests/"+name, 0o755, 0, 0)
		names = append(names, name)
	}
	tree.Data("/init", 0o755, []byte(script(names, o.skip)))
	initial, err := tree.CPIO()
	if err != nil {
		return err
	}
	files := map[string][]byte{"initrd": initial, "kernel": kernel}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(o.out, name), data, 0o644); err != nil {
			return err
		}
	}
	return o.boot(ctx, names)
}

func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// system is a file system with a shell, the tools of the tests and the kernel's modules, and the kernel.
func (o options) system(ctx context.Context) (*rootfs.Tree, []byte, error) {
	source, err := debian.Open(ctx, filepath.Join(o.out, "debian"), o.release, "arm64")
	if err != nil {
		return nil, nil, err
	}
	tree := rootfs.New()
	tree.Merge()
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/root"} {
		tree.Dir(dir, 0o755, 0, 0)
	}
	tree.Link("/var/run", "/run")
	tree.Data("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	tree.Data("/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	packages := []string{"busybox-static", "iproute2", "nftables", "iptables", "ipset"}
	if o.peers {
		packages = append(packages, "openssl", "haproxy", "nghttp2-proxy")
	}
	// What maintainer scripts need, and they do not run.
	without := []string{
		"debconf", "cdebconf", "dpkg", "install-info", "tar", "readline-common", "libdebian-installer4", "libnewt0.52", "libslang2",
		"libtextwrap1", "libcap2-bin", "netbase",
	}
	if _, err := source.Unpack(ctx, tree, packages, without); err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		tree.Link("/usr/sbin/"+name, "xtables-nft-multi")
	}
	if o.kernelRelease != o.release {
		if source, err = debian.Open(ctx, filepath.Join(o.out, "debian"), o.kernelRelease, "arm64"); err != nil {
			return nil, nil, err
		}
	}
	image := rootfs.New()
	packages, err = kernelPackages(ctx, source, o.kernel)
	if err != nil {
		return nil, nil, err
	}
	if _, err := source.UnpackOnly(ctx, image, packages...); err != nil {
		return nil, nil, err
	}
	var kernel []byte
	files := map[string]string{} // of modules
	for _, name := range image.Files() {
		if module := moduleName(name); module != "" {
			files[module] = name
		} else if strings.HasPrefix(path.Base(name), "vmlinuz") {
			if kernel, err = image.Read(name); err != nil {
				return nil, nil, err
			}
		}
	}
	if kernel == nil {
		return nil, nil, fmt.Errorf("the package %s has no kernel", o.kernel)
	}
	loaded, err := wanted(slices.Sorted(maps.Keys(files)), func(module string) ([]byte, error) { return readModule(ctx, image, files[module]) })
	if err != nil {
		return nil, nil, err
	}
	var order strings.Builder
	for _, m := range loaded {
		tree.Data("/modules/"+m.name+".ko", 0o644, m.data)
		order.WriteString(m.name + "\n")
	}
	tree.Data("/modules/order", 0o644, []byte(order.String()))
	return tree, kernel, nil
}

// kernelPackages are what a package that names the current kernel leads to: one with all of it, or one each for the kernel and its modules.
func kernelPackages(ctx context.Context, source *debian.Source, name string) ([]string, error) {
	var out []string
	var follow func(name string) error
	follow = func(name string) error {
		needed, err := source.Depends(ctx, name)
		if err != nil {
			return err
		}
		for _, part := range needed {
			if !kernelPart.MatchString(part) || slices.Contains(out, part) {
				continue
			}
			out = append(out, part)
			if err := follow(part); err != nil {
				return err
			}
		}
		return nil
	}
	return out, follow(name)
}

var kernelPart = regexp.MustCompile(`^linux-(image|binary|modules)-[0-9]`)

const moduleSuffix, compressedSuffix = ".ko", ".xz"

// moduleName is the name of the module that a file has; "" for another file.
func moduleName(file string) string {
	name, ok := strings.CutSuffix(strings.TrimSuffix(path.Base(file), compressedSuffix), moduleSuffix)
	if !ok {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_")
}

// readModule reads a module as the machine's busybox loads it: it does not unpack.
func readModule(ctx context.Context, image *rootfs.Tree, file string) ([]byte, error) {
	data, err := image.Read(file)
	if err != nil || !strings.HasSuffix(file, compressedSuffix) {
		return data, err
	}
	cmd := exec.CommandContext(ctx, "xz", "-dc") // Debian always has it
	cmd.Stdin = bytes.NewReader(data)
	return cmd.Output()
}

// module is one that the machine loads.
type module struct {
	name string
	data []byte
}

// wanted are the modules of the tests among known ones, each after what it depends on.
func wanted(known []string, read func(name string) ([]byte, error)) ([]module, error) {
	family := regexp.MustCompile(`^(tls|gcm|ctr|ghash.*|aes.*|chacha.*|poly1305.*|nft_.*|nf_tables|nfnetlink|xt_.*|x_tables|ip6?_tables|ip6?table_.*|ipt_.*|ip6t_.*|ip_set.*|nf_conntrack_netlink|xfrm_user|inet_diag|tcp_diag|udp_diag|veth|dummy|bridge)$`)
	var out []module
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if seen[name] || !slices.Contains(known, name) {
			return nil
		}
		seen[name] = true
		data, err := read(name)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		if _, rest, ok := bytes.Cut(data, []byte("\x00depends=")); ok {
			list, _, _ := bytes.Cut(rest, []byte{0})
			for _, needed := range strings.FieldsFunc(string(list), func(r rune) bool { return r == ',' }) {
				if err := add(strings.ReplaceAll(needed, "-", "_")); err != nil {
					return err
				}
			}
		}
		out = append(out, module{name, data})
		return nil
	}
	for _, name := range known {
		if family.MatchString(name) {
			if err := add(name); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// newerKernel are tests of what bookworm's kernel, 6.1, cannot do yet: it gives a redirected connection to the socket of another one
// from the same source port (docs/differences.md), and it has no tcx, by which sklookup marks what arrives where pods keep their own
// choices.
const newerKernel = "^TestOnePortOfAPeerReachesAllOfAPod$|^TestSKLookupLeavesNothing$|^TestPodsOwnChoices$/^sklookup$"

// script is what the machine does.
func script(names []string, skip string) string {
	var out strings.Builder
	out.WriteString(`#!/bin/busybox sh
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
ln -s /proc/self/fd /dev/fd
while read -r m; do insmod /modules/$m.ko 2>/dev/null || echo "module $m: not loaded"; done < /modules/order
ip link set lo up
uname -a
`)
	for _, name := range names {
		fmt.Fprintf(&out, "cd /tests/%[1]s && /tests/%[1]s.test -test.v -test.timeout 20m -test.skip '%[3]s'; echo %[2]s %[1]s $?\n", name, result, skip)
	}
	out.WriteString("poweroff -f\n")
	return out.String()
}

// boot starts the machine and follows what it says.
func (o options) boot(ctx context.Context, names []string) error {
	cmd := exec.CommandContext(ctx, "qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72", "-smp", strconv.Itoa(o.processors),
		"-m", strconv.Itoa(o.memory), "-nographic", "-no-reboot", "-nic", "none", "-kernel", filepath.Join(o.out, "kernel"),
		"-initrd", filepath.Join(o.out, "initrd"), "-append", "console=ttyAMA0 quiet panic=-1")
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	log, err := os.Create(filepath.Join(o.out, "machine.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: install qemu-system-arm", err)
	}
	codes := map[string]string{}
	shown := regexp.MustCompile(`^(=== RUN|--- |\s+--- |ok|FAIL|PASS|panic|Linux |module |` + result + `)`)
	for lines := bufio.NewScanner(output); lines.Scan(); {
		line := strings.TrimRight(lines.Text(), "\r")
		fmt.Fprintln(log, line)
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == result {
			codes[fields[1]] = fields[2]
		}
		if shown.MatchString(line) && !strings.HasPrefix(line, "=== RUN") {
			fmt.Println(line)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the machine: %w (%s)", errors.Join(err, ctx.Err()), log.Name())
	}
	var problems []error
	for _, name := range names {
		if codes[name] != "0" {
			problems = append(problems, fmt.Errorf("%s: exit code %q; see %s", name, codes[name], log.Name()))
		}
	}
	return errors.Join(problems...)
}
