package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// logLine waits for the line of a request in the log of an engine, and returns what follows the key.
func (b *testbed) logLine(ctx context.Context, p *proxy, key string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		text, err := os.ReadFile(filepath.Join(b.dir, p.pod+".log"))
		if err != nil {
			return err.Error()
		}
		if _, rest, found := bytes.Cut(text, []byte(key+" ")); found {
			if line, _, whole := bytes.Cut(rest, []byte("\n")); whole {
				return string(line)
			}
		}
		pause(ctx, 10*time.Millisecond)
	}
	return "there is no line"
}

// refusals are lines of the control plane's log since the last call that tell of configuration which a proxy, or the control plane
// itself, has refused.
func (b *testbed) refusals() ([]string, error) {
	file, err := os.Open(filepath.Join(b.dir, "pilot.log"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(b.logRead, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	b.logRead += int64(end)
	var out []string
	for line := range strings.Lines(string(text[:end])) {
		nack := strings.Contains(line, "rejected resources")
		bad := strings.Contains(line, "\terror\tconfig\t")
		if nack || bad {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out, nil
}
