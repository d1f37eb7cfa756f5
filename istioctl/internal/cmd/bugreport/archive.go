package bugreport

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// mostLines bounds what the summary quotes of logs.
const mostLines = 200

// collector makes the archive.
type collector struct {
	flags *flags
	mesh  *reach.Mesh

	mu       sync.Mutex // guards the fields below
	good     int
	bytes    int
	problems []string
	found    []string // lines of logs that are critical
}

// look searches a log for what is critical.
func (c *collector) look(p reach.Pod, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(text) {
		if contains(line, c.flags.critical) && !contains(line, c.flags.ignored) && len(c.found) < mostLines {
			c.found = append(c.found, p.String()+": "+strings.TrimSpace(line))
		}
	}
}

func contains(line string, words []string) bool {
	for _, w := range words {
		if strings.Contains(strings.ToLower(line), strings.ToLower(w)) {
			return true
		}
	}
	return false
}

// write collects all items and writes them to a file as they come. What is there when the time is up is kept.
func (c *collector) write(ctx context.Context, name string, items []item, progress io.Writer) (err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	compressed := gzip.NewWriter(file)
	archive := tar.NewWriter(compressed)
	if err := c.collect(ctx, items, archive, progress); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := c.put(archive, "summary.txt", []byte(c.summary(len(items)))); err != nil {
		return err
	}
	return errors.Join(archive.Close(), compressed.Close())
}

func (c *collector) collect(ctx context.Context, items []item, archive *tar.Writer, progress io.Writer) error {
	var running sync.WaitGroup
	slots := make(chan struct{}, c.flags.concurrency)
	var failure error // guarded by c.mu
	said := time.Now()
	for n, i := range items {
		slots <- struct{}{}
		if now := time.Now(); now.Sub(said) > 5*time.Second {
			fmt.Fprintf(progress, "%d of %d: %s\n", n, len(items), i.name)
			said = now
		}
		running.Go(func() {
			defer func() { <-slots }()
			data, err := i.make(ctx)
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case err != nil:
				c.problems = append(c.problems, i.name+": "+err.Error())
			case len(data) == 0 || failure != nil:
			case c.bytes+len(data) > c.flags.megabytes<<20:
				c.problems = append(c.problems, fmt.Sprintf("%s: left out, as it would be more than %d MiB in all (--max-size)", i.name, c.flags.megabytes))
			default:
				c.bytes += len(data)
				c.good++
				failure = c.put(archive, i.name, data)
			}
		})
	}
	running.Wait()
	return failure
}

// put writes one file.
func (c *collector) put(archive *tar.Writer, name string, data []byte) error {
	if c.flags.directory != "" {
		path := filepath.Join(c.flags.directory, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	if err := archive.WriteHeader(&tar.Header{Name: "bug-report/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: time.Now()}); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}

func (c *collector) summary(planned int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "istioctl %s, %s: %d of %d files\n", c.flags.build.Version, time.Now().UTC().Format(time.RFC3339), c.good, planned)
	for _, p := range c.problems {
		fmt.Fprintln(&out, "not collected:", p)
	}
	if len(c.found) > 0 {
		fmt.Fprintf(&out, "\nLines of logs with %s:\n%s\n", strings.Join(c.flags.critical, ", "), strings.Join(c.found, "\n"))
	}
	return out.String()
}
