package kindnetlite

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Apply makes the node be as planned. The CNI configuration comes last: its presence is what makes the node ready.
func Apply(ctx context.Context, plan Plan, conflistPath string) error {
	for _, r := range plan.Routes {
		if err := command(ctx, "", "ip", "route", "replace", r.To.String(), "via", r.Via.String()); err != nil {
			return err
		}
	}
	if err := command(ctx, plan.Rules, "nft", "-f", "-"); err != nil {
		return err
	}
	onDisk, err := os.ReadFile(conflistPath)
	if err == nil && SameNetwork(onDisk, []byte(plan.Conflist)) {
		return nil
	}
	// A name that no runtime reads, then a rename: nobody sees half a file.
	tmp := filepath.Join(filepath.Dir(conflistPath), ".kindnetlite.tmp")
	if err := os.WriteFile(tmp, []byte(plan.Conflist), 0o644); err != nil { //nolint:gosec // the runtime reads it
		return err
	}
	return os.Rename(tmp, conflistPath)
}

func command(ctx context.Context, stdin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
