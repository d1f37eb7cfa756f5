package meshconfig

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file must be left alone before it is read.
const settle = 50 * time.Millisecond

// watchFile calls changed at the start and after changes of the file, until ctx ends. Its directory is watched, so that atomic
// replacement and the swap of a mounted ConfigMap are seen.
func watchFile(ctx context.Context, file string, log *slog.Logger, changed func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the mesh configuration: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(file)); err != nil {
		return fmt.Errorf("watch the mesh configuration: %w", err)
	}
	timer := time.NewTimer(0) // what changed before the watch
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			timer.Reset(settle)
		case err := <-watcher.Errors:
			log.Warn("watching the mesh configuration; reading it again", "error", err)
			timer.Reset(settle)
		case <-timer.C:
			changed()
		}
	}
}
