package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// maxLine is where a line of output is cut in two, in bytes.
	maxLine = 64 << 10
	// maxLog is the size at which a log is begun anew, in bytes; the one before is kept beside it.
	maxLog = 64 << 20
	// followEvery is how often a followed log is looked at.
	followEvery = 100 * time.Millisecond
)

// logFile writes the output of a container, each line after its time.
type logFile struct {
	path string

	mu      sync.Mutex // guards what follows
	file    *os.File
	size    int64
	partial []byte
}

func openLog(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &logFile{path: path, file: file, size: info.Size()}, nil
}

// Write implements io.Writer.
func (l *logFile) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, data...)
	for {
		end := bytes.IndexByte(l.partial, '\n')
		if end < 0 && len(l.partial) < maxLine {
			return len(data), nil
		}
		if end < 0 {
			end = maxLine - 1
		}
		line := l.partial[:end]
		if err := l.line(line); err != nil {
			return 0, err
		}
		l.partial = append(l.partial[:0], l.partial[end+1:]...)
	}
}

func (l *logFile) line(text []byte) error {
	if l.size > maxLog {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
		next, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		l.file.Close()
		l.file, l.size = next, 0
	}
	n, err := fmt.Fprintf(l.file, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano), text)
	l.size += int64(n)
	return err
}

// Close writes what has no end of line yet.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if len(l.partial) > 0 {
		err = l.line(l.partial)
		l.partial = nil
	}
	return errors.Join(err, l.file.Close())
}

// CopyLog writes the lines of a log since a moment to w, without their times, and goes on with what comes while follow is
// set, ctx lives and the pod is there. It closes the file.
func CopyLog(ctx context.Context, file *os.File, since time.Time, follow bool, w io.Writer) error {
	path := file.Name()
	defer func() { file.Close() }()
	in := bufio.NewReader(file)
	var line []byte
	gone := false // the file had been removed before the last read
	for {
		part, err := in.ReadBytes('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			stamp, text, _ := bytes.Cut(line, []byte(" "))
			if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err != nil || !at.Before(since) {
				if _, err := w.Write(text); err != nil {
					return err
				}
			}
			line = line[:0]
		case !errors.Is(err, io.EOF):
			return err
		case !follow:
			return nil
		case gone:
			return nil
		default:
			if next, err := os.Open(path); err == nil {
				if same(file, next) {
					next.Close()
				} else { // what was read is the part before
					file.Close()
					file = next
					in.Reset(file)
					continue
				}
			}
			if gone = removed(file); gone {
				continue
			}
			select {
			case <-time.After(followEvery):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func same(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// removed tells whether a file has no name any more.
func removed(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}
