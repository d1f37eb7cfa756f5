// Package inotify raises the machine's limits of file watches: the nodes of all clusters share them, systemd, kubelet
// and kube-proxy of each take some, and where they are used up these end with "too many open files".
package inotify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Dir is where the kernel shows the limits.
const Dir = "/proc/sys/fs/inotify"

// Raise makes every limit in dir at least what a few clusters need; it lowers none.
func Raise(dir string) error {
	var errs []error
	for name, least := range map[string]int{"max_user_instances": 1024, "max_user_watches": 524288} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		now, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && now < least {
			err = os.WriteFile(path, []byte(strconv.Itoa(least)), 0o644) //nolint:gosec // a limit of the kernel
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("raise %s to %d: %w", path, least, err))
		}
	}
	return errors.Join(errs...)
}
