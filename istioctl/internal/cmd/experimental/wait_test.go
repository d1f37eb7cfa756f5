package experimental

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestEnded(t *testing.T) {
	over, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	running := t.Context()
	for name, tt := range map[string]struct {
		ctx  context.Context //nolint:containedctx // a row of a table
		err  error
		last string
		want string
	}{
		"the time is up":                  {over, over.Err(), "", "after 1m0s the control plane has not answered"},
		"some are late":                   {over, over.Err(), "waypoint.default", "after 1m0s these have not acknowledged what was sent last: waypoint.default"},
		"there is no time for one's turn": {running, errors.New("rate: Wait(n=1) would exceed context deadline"), "", "after 1m0s the control plane has not answered"},
		"another error":                   {running, errors.New("forbidden"), "", "forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ended(tt.ctx, tt.err, time.Minute, tt.last).Error()
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
