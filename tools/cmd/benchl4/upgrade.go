package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/internal/upgradebed"
)

// upgradeDropped is what is lost when the proxies of two nodes are replaced while connections are open.
const upgradeDropped = "upgrade-dropped"

// upgrade replaces both proxies under load, and prints what happened.
func upgrade(ctx context.Context, o options, w io.Writer) (upgradebed.Result, error) {
	r, err := upgradebed.Run(ctx, upgradebed.Options{Idle: o.open, Streams: o.calls})
	if err != nil {
		return r, err
	}
	fmt.Fprintf(w, "upgrade of both proxies, %d idle, %d streaming, %d requests\tdropped %d\tlongest gap %v\t\t\t\n",
		o.open, o.calls, r.Requests, r.Dropped, r.Longest.Round(time.Millisecond))
	if r.First != nil {
		fmt.Fprintf(w, "dropped first\t%v\t\t\t\t\n", r.First)
	}
	return r, nil
}
