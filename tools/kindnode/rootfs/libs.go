package rootfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/archive"
)

// LegacyDir is a folder in which iptables is the one of the kernel's older tables, among the network tools. Who restores a whole table
// (kube-router does) must not do so in those of kube-proxy.
const LegacyDir = "/usr/local/legacy"

// NetworkTools collects the programs that program a node's network (ip, nft, ipset, both kinds of iptables, conntrack) with all libraries
// they load, for images that are made of nothing else.
func NetworkTools(ctx context.Context, root string) ([]archive.File, error) {
	programs := []string{"/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi", "/usr/sbin/nft", "/usr/sbin/ipset", "/usr/sbin/conntrack", "/usr/bin/ip"}
	// The extensions of iptables are loaded when a rule names them, with libraries of their own (libxt_statistic
	// needs libm), which ldd of the program does not show.
	plugins, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu/xtables/*.so"))
	if err != nil {
		return nil, err
	}
	loaded := slices.Clone(programs)
	for _, p := range plugins {
		loaded = append(loaded, strings.TrimPrefix(p, root))
	}
	libs, err := libraries(ctx, root, loaded)
	if err != nil {
		return nil, err
	}
	var files []archive.File
	for _, p := range append(loaded, libs...) {
		source, err := resolve(root, p)
		if err != nil {
			return nil, err
		}
		files = append(files, archive.File{Path: p, Source: source})
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			files = append(files, archive.File{Path: "/usr/sbin/" + family + verb, Link: "xtables-nft-multi"})
			files = append(files, archive.File{Path: "/usr/sbin/" + family + "-nft" + verb, Link: "xtables-nft-multi"})
			files = append(files, archive.File{Path: "/usr/sbin/" + family + "-legacy" + verb, Link: "xtables-legacy-multi"})
			files = append(files, archive.File{Path: LegacyDir + "/" + family + verb, Link: "/usr/sbin/xtables-legacy-multi"})
		}
	}
	return files, nil
}

func libraries(ctx context.Context, root string, objects []string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "chroot", append([]string{root, "ldd"}, objects...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd in %s: %w", root, err)
	}
	return parseLDD(string(out)), nil
}

// parseLDD gives the absolute paths of the libraries that ldd prints, each once.
func parseLDD(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, ":") {
			continue
		}
		if _, target, ok := strings.Cut(line, "=> "); ok {
			line = target
		}
		path, _, _ := strings.Cut(line, " ")
		if strings.HasPrefix(path, "/") {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// resolve follows the links of a path as they are seen inside root, where absolute targets begin.
func resolve(root, path string) (string, error) {
	for range 16 {
		at := filepath.Join(root, path)
		dir, err := filepath.EvalSymlinks(filepath.Dir(at))
		if err != nil {
			return "", err
		}
		at = filepath.Join(dir, filepath.Base(at))
		target, err := os.Readlink(at)
		if err != nil {
			return at, nil //nolint:nilerr // not a link: this is the file
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(strings.TrimPrefix(dir, root), target)
		}
		path = target
	}
	return "", fmt.Errorf("%s: too many links", path)
}
