// Package images knows which local program stands for a container image. The sandbox pulls nothing: it runs the samples
// and the mesh itself from local binaries, under the image names of this project and of the samples that people know.
package images

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Program is what runs for an image.
type Program struct {
	// Entrypoint and Cmd are as in an image: the first is replaced by a container's command, the second by its args.
	Entrypoint, Cmd []string
	Env             []string
}

// Table maps images to programs.
type Table struct {
	binDir string
}

// New returns the table of programs in binDir, as containers see it.
func New(binDir string) *Table { return &Table{binDir: binDir} }

// entry is one image, by the last part of its name, or by the last two where others have the same last one.
type entry struct {
	name    *regexp.Regexp
	program string // in binDir; empty: the machine's own commands
	args    []string
	version bool // the name's -vN goes into SERVICE_VERSION
}

func entries() []entry {
	exact := func(names ...string) *regexp.Regexp {
		return regexp.MustCompile("^(" + strings.Join(names, "|") + ")$")
	}
	return []entry{
		{exact(`examples-bookinfo-productpage(-v\d+)?`), "productpage", nil, false},
		{exact(`examples-bookinfo-details(-v\d+)?`), "details", nil, true},
		{exact(`examples-bookinfo-reviews-v\d+`), "reviews", nil, true},
		{exact(`examples-bookinfo-ratings-v\d+`, `examples-bookinfo-ratings-v-[a-z]+`), "ratings", nil, true},
		{exact(`kennethreitz/httpbin`), "httpbin", []string{"80"}, false},
		{exact(`httpbin`, `go-httpbin`), "httpbin", nil, false},
		{exact(`tcp-echo-server`, `tcp-echo`), "tcp-echo", []string{"9000", "hello"}, false},
		{exact(`udp-echo-server`, `udp-echo`), "udp-echo", []string{"9000", "hello"}, false},
		{exact(`curl`, `sleep`, `netshoot`, `busybox`, `debian`, `alpine`), "", []string{"sleep", "infinity"}, false},
		{exact(`pilot`), "pilot-discovery", nil, false},
		{exact(`ztunnel`), "ztunnel", nil, false},
		{exact(`install-cni`), "install-cni", nil, false},
		{exact(`waypoint`, `proxyv2`), "waypoint", nil, false},
	}
}

// Resolve finds the program of an image. Registry, tag and digest do not count.
func (t *Table) Resolve(image string) (Program, error) {
	owned := lastParts(image)
	name := owned[strings.LastIndex(owned, "/")+1:]
	for _, e := range entries() {
		if !e.name.MatchString(name) && !e.name.MatchString(owned) {
			continue
		}
		p := Program{Cmd: e.args}
		if e.program != "" {
			p.Entrypoint = []string{filepath.Join(t.binDir, e.program)}
		}
		if e.version {
			if v := regexp.MustCompile(`-(v-?[a-z0-9]+)$`).FindStringSubmatch(name); v != nil {
				p.Env = append(p.Env, "SERVICE_VERSION="+v[1])
			}
		}
		return p, nil
	}
	return Program{}, fmt.Errorf("image %q is not known here: the sandbox pulls no images, it runs local programs for the images of Bookinfo, httpbin, go-httpbin, tcp-echo-server, udp-echo-server, curl, sleep, busybox, alpine and debian", image)
}

// lastParts is the end of an image's name, "owner/name", without tag and digest.
func lastParts(image string) string {
	image, _, _ = strings.Cut(image, "@")
	parts := strings.Split(image, "/")
	last := len(parts) - 1
	parts[last], _, _ = strings.Cut(parts[last], ":")
	return strings.Join(parts[max(0, last-1):], "/")
}

// Command is the argv of a container: its command replaces the image's entrypoint and arguments, its args only the latter.
func Command(p Program, c *corev1.Container) []string {
	switch {
	case len(c.Command) > 0:
		return slices.Concat(c.Command, c.Args)
	case len(c.Args) > 0:
		return slices.Concat(p.Entrypoint, c.Args)
	}
	return slices.Concat(p.Entrypoint, p.Cmd)
}
