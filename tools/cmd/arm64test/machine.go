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
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", file, "./"+directory)
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
	tree.Data("/init", 0o755, []byte(script(names)))
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
	image := rootfs.New()
	packages, err = source.Depends(ctx, o.kernel) // its version
	if err != nil {
		return nil, nil, err
	}
	if _, err := source.UnpackOnly(ctx, image, packages...); err != nil {
		return nil, nil, err
	}
	var kernel []byte
	modules := map[string][]byte{}
	for _, name := range image.Files() {
		switch {
		case strings.HasPrefix(name, "/boot/vmlinuz-"):
			kernel, err = image.Read(name)
		case strings.HasSuffix(name, ".ko"):
			modules[strings.ReplaceAll(strings.TrimSuffix(path.Base(name), ".ko"), "-", "_")], err = image.Read(name)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if kernel == nil {
		return nil, nil, fmt.Errorf("the package %s has no kernel", o.kernel)
	}
	var order strings.Builder
	for _, name := range wanted(modules) {
		tree.Data("/modules/"+name+".ko", 0o644, modules[name])
		order.WriteString(name + "\n")
	}
	tree.Data("/modules/order", 0o644, []byte(order.String()))
	return tree, kernel, nil
}

// wanted are the modules of the tests, each after what it depends on.
func wanted(modules map[string][]byte) []string {
	family := regexp.MustCompile(`^(nft_.*|nf_tables|nfnetlink|xt_.*|x_tables|ip6?_tables|ip6?table_.*|ipt_.*|ip6t_.*|ip_set.*|nf_conntrack_netlink|xfrm_user|inet_diag|tcp_diag|udp_diag|veth|dummy|bridge)$`)
	var out []string
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		data, known := modules[name]
		if seen[name] || !known {
			return
		}
		seen[name] = true
		if _, rest, ok := bytes.Cut(data, []byte("\x00depends=")); ok {
			list, _, _ := bytes.Cut(rest, []byte{0})
			for _, needed := range strings.FieldsFunc(string(list), func(r rune) bool { return r == ',' }) {
				add(strings.ReplaceAll(needed, "-", "_"))
			}
		}
		out = append(out, name)
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		if family.MatchString(name) {
			add(name)
		}
	}
	return out
}

// newerKernel are tests of what the machine's kernel, 6.1, cannot do yet: it gives a redirected connection to the socket of another one
// from the same source port (docs/differences.md), and it has no tcx, by which sklookup marks what arrives where pods keep their own
// choices.
const newerKernel = "^TestOnePortOfAPeerReachesAllOfAPod$|^TestSKLookupLeavesNothing$|^TestPodsOwnChoices$/^sklookup$"

// script is what the machine does.
func script(names []string) string {
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
		fmt.Fprintf(&out, "cd /tests/%[1]s && /tests/%[1]s.test -test.v -test.timeout 20m -test.skip '%[3]s'; echo %[2]s %[1]s $?\n", name, result, newerKernel)
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
